"""Where bytes rest: partial files with a journal and a lease, and the places they are published into."""
