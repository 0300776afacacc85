//! What is known about containers, on disk: `<root>/<id>/`.
//!
//! ```text
//!  state.json   the record; written before the container is made (pid 0) and again when it is, or while
//!  config.json  the configuration it was created with
//!  exec.fifo    exists from create to start
//! ```
//!
//! ```text
//!   reserve ─▶ Creating ─▶ Created ─start▶ Running ◀pause/resume▶ Paused
//!                  │           └──────────────┴───────────────▶ Stopped ─delete▶ (gone)
//!                  └── a killed `create` leaves it; delete --force sweeps it up
//! ```
//!
//! Only the record is stored; the status is found out anew each time from the process, the FIFO and the freezer.

mod record;
mod status;
mod store;

pub(crate) use record::Record;
pub(crate) use status::{Process, Status, start_time};
pub(crate) use store::{Container, Store};
