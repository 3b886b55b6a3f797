"""The on-host half of cloudtrain: receives the code, runs the job detached, and tells what became of it.

Standard library only, any Python from 3.8 on, Linux, macOS and Windows. It is sent to the host, where this package is
called `onhost` and runs on whatever interpreter the host has: it imports nothing of cloudtrain, and its modules each
other by relative names. docs/protocol.md, is its contract: folders, verbs, frames.

Reading order: `main`, the modules of the verbs (`do_...`), then `supervise`, the detached process around the job.
"""
