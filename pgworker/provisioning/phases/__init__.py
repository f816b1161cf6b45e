"""One module for each phase of the provisioning workflow."""
