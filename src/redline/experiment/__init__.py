"""From a file or options to an Experiment, and from that to jobs with their keys, commands and cost."""
