//! What a build tells while it runs.

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

/// Which step a piece of progress belongs to. Steps of different stages run side by side, so that their events mix;
/// those of one stage come in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the step in the whole build, from 1.
    pub step: usize,
    /// Which of the stages that are built, from 0.
    pub stage: usize,
}

/// A piece of progress and the step that it belongs to; none for what concerns the build as a whole.
#[derive(Debug, Clone)]
pub struct Event {
    /// Where.
    pub place: Option<Place>,
    /// What.
    pub what: BuildEvent,
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
        /// The stage's name, or its number.
        stage: String,
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
    /// The cache has nothing for this step.
    Missed {
        /// Which inputs differ from the last time that this step was built.
        reasons: Vec<String>,
    },
    /// An equal step is running, here or in another build; its result will be used.
    Waiting,
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
    /// The step failed.
    StepFailed {
        /// Why.
        message: String,
    },
    /// All steps of a stage are done.
    StageDone,
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
