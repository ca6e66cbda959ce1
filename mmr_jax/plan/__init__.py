"""What the steps of a study cost on TPUs that are not there, or on the machine at hand, without running them."""
