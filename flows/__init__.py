"""What happens: one file a playbook, plus approval and incident."""
