"""The drop-in for `vllm bench sweep serve_sla`: its files and flags in, its tree out, answers by Redline's search."""
