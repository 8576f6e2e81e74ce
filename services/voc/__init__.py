"""The voice of the customer: every comment, its themes and its mood, weighed by what the account is worth."""
