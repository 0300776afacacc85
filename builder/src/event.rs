//! What a build tells while it runs: the classic builder's progress, without its formatting.

use berth_oci::Digest;
use bytes::Bytes;

/// Which of a step's two output streams some bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One piece of progress.
///
/// The classic text form of each variant, as `docker build` prints it, stands beside it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum BuildEvent {
    /// `Step n/total : text`
    StepStart {
        /// Number of the step, from 1.
        n: usize,
        /// How many steps this build has.
        total: usize,
        /// The instruction, on one line.
        text: String,
    },
    /// `# Executing 2 build triggers`
    Triggers {
        /// How many `ONBUILD` instructions the base image brought.
        count: usize,
    },
    /// ` ---> Using cache`
    Cached,
    /// ` ---> Running in 0123456789ab`
    Running {
        /// Id of the step's container.
        container: String,
    },
    /// Bytes that a `RUN` step wrote, as they came.
    Output {
        /// Which stream.
        stream: OutputStream,
        /// The bytes; not necessarily whole lines or UTF-8.
        bytes: Bytes,
    },
    /// `Removing intermediate container 0123456789ab`
    Removed {
        /// Id of the step's container.
        container: String,
    },
    /// ` ---> 0123456789ab`
    StepDone {
        /// Id of the image as it stands after the step.
        id: Digest,
    },
    /// `[Warning] text`, or a lint finding.
    Warning {
        /// The text, with rule and line where it has them.
        text: String,
    },
    /// `Successfully built 0123456789ab` and `{"aux":{"ID":"sha256:…"}}`
    Built {
        /// Id of the finished image.
        id: Digest,
    },
    /// `Successfully tagged name`
    Tagged {
        /// The tag in its familiar form.
        reference: String,
    },
}
