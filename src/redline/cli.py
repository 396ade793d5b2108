"""argv to api calls, and answers to stdout and exit codes."""

import click


@click.group()
@click.version_option(package_name="redline")
def main() -> None:
    """How much load does this LLM server carry before it breaks its promise?"""
