//! `ContainerConfig`: the portable half of a container, what an image may preset.

use std::collections::BTreeMap;

use crate::wire::{Empty, is_default};

wire! {
    /// The portable configuration: what runs, as whom, with which environment.
    pub struct ContainerConfig {
        /// Host name; the first 12 digits of the id when empty.
        pub hostname: String,
        /// Domain name.
        pub domainname: String,
        /// `user[:group]`, names or numbers.
        pub user: String,
        /// Whether the creating client attaches to stdin.
        pub attach_stdin: bool,
        /// Whether the creating client attaches to stdout.
        pub attach_stdout: bool,
        /// Whether the creating client attaches to stderr.
        pub attach_stderr: bool,
        /// `80/tcp` → `{}`.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub exposed_ports: BTreeMap<String, Empty>,
        /// Whether the process has a terminal.
        pub tty: bool,
        /// Whether stdin stays open without a client.
        pub open_stdin: bool,
        /// Whether stdin closes when the first attached client goes.
        pub stdin_once: bool,
        /// `NAME=value`; a bare `NAME` removes what the image sets.
        pub env: Option<Vec<String>>,
        /// Health check; `None` inherits the image's.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub healthcheck: Option<HealthConfig>,
        /// Windows only: the command is already escaped.
        #[serde(skip_serializing_if = "is_default")]
        pub args_escaped: bool,
        /// The image as the user typed it.
        pub image: String,
        /// Anonymous volumes: path in the container → `{}`.
        pub volumes: Option<BTreeMap<String, Empty>>,
        /// Working directory.
        pub working_dir: String,
        /// Whether to have no network at all.
        #[serde(skip_serializing_if = "is_default")]
        pub network_disabled: bool,
        /// Hardware address (API before 1.44; now in the endpoint settings).
        #[serde(skip_serializing_if = "String::is_empty")]
        pub mac_address: String,
        /// Build triggers of an image.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub on_build: Option<Vec<String>>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Signal that stops the container, `SIGTERM` when empty.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub stop_signal: String,
        /// Seconds between that signal and SIGKILL; -1 waits for ever.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stop_timeout: Option<i64>,
    }
    strings {
        /// Arguments, or command and arguments when there is no entrypoint.
        pub cmd: Option<Vec<String>>,
        /// Entrypoint; `[""]` removes the image's.
        pub entrypoint: Option<Vec<String>>,
        /// Shell for the shell form of RUN, CMD and ENTRYPOINT.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub shell: Option<Vec<String>>,
    }

    /// How to find out whether a container is healthy. Durations are nanoseconds; 0 inherits.
    pub struct HealthConfig {
        /// `[]` inherits, `["NONE"]` disables, `["CMD", …]` or `["CMD-SHELL", command]`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub test: Option<Vec<String>>,
        /// Time between checks.
        #[serde(skip_serializing_if = "is_default")]
        pub interval: i64,
        /// Time after which a check has failed.
        #[serde(skip_serializing_if = "is_default")]
        pub timeout: i64,
        /// Time after the start during which failures do not count.
        #[serde(skip_serializing_if = "is_default")]
        pub start_period: i64,
        /// Time between checks during the start period.
        #[serde(skip_serializing_if = "is_default")]
        pub start_interval: i64,
        /// Failures in a row that make a container unhealthy.
        #[serde(skip_serializing_if = "is_default")]
        pub retries: i64,
    }
}
