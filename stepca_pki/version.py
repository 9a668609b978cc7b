"""The one place that knows our version and the step-ca release we are tested with."""

VERSION = "0.1.0"
STEP_CA_VERSION = "0.30.2"
