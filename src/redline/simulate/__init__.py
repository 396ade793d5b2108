"""A simulated LLM server: in virtual time as a Session, over HTTP as a process, and its true capacity."""
