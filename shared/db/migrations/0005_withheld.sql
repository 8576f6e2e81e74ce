-- What no adapter could read is looked through when a person is deleted.
create index contacts_withheld on hune.contacts (token) where kind = 'withheld';
