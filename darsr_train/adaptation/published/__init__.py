"""The parts of the published procedure (profile ``paper``)."""
