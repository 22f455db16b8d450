"""The steps of the playbooks: one module a technology."""
