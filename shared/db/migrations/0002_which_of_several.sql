-- Which of the installation's databases this is, from 0: partition p's state is in number p mod n of the workers' list,
-- so that the same databases in another order are as wrong as others.
alter table hune.installation add number int;
