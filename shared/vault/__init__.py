"""The contact vault: e-mail addresses, names, phone numbers and IP addresses, a key per person.

Events carry opaque references instead; whoever has the installation's key may look them up while the person's lives.
"""
