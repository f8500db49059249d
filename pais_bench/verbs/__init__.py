"""What else can the command line do? One file a verb, beside the six of the workflow."""
