def held(what: str) -> None:
    """A line for the test that runs this."""
    print(f"held: {what}", flush=True)
