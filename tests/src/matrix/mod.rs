//! What a command line and an engine must do together, written once and run for each pair of them:
//! docker CLI × berthd, berth × berthd, and (a part of it) berth × dockerd.
//!
//! A case gets an engine with the image `busybox` and cleans up nothing: the engine goes away with the case,
//! or, where it is shared, names are the case's own.

use std::path::PathBuf;

use crate::cli::Cli;

pub mod build;
pub mod commands;
pub mod exec;
pub mod images;
pub mod lifecycle;
pub mod limits;
pub mod network;
pub mod options;
pub mod run;
pub mod storage;

/// What a case works with.
#[derive(Debug)]
pub struct Fixture {
    /// The command line under test, pointed at the engine under test.
    pub cli: Cli,
    /// An empty directory for files of the case.
    pub scratch: PathBuf,
}

/// Makes a `#[test]` of each named case, each with a private berthd and the command line `$frontend`.
#[macro_export]
macro_rules! matrix {
    ($frontend:expr => $($module:ident :: { $($case:ident),+ $(,)? })+) => {
        $(mod $module {
            $(#[test]
            fn $case() {
                let daemon = $crate::daemon::Daemon::with_busybox();
                let fixture = $crate::matrix::Fixture {
                    cli: daemon.cli($frontend),
                    scratch: daemon.scratch(stringify!($case)),
                };
                $crate::matrix::$module::$case(&fixture);
            })+
        })+
    };
}
