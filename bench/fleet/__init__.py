"""Many machines: Ansible carries scenarios to boards, each runs them by `bench run`, and files come back."""
