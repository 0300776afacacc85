//! A container's streams on ours: raw terminals, copying both ways, signals, sizes.

pub(crate) mod detach;
pub(crate) mod pump;
pub(crate) mod signals;
pub(crate) mod terminal;
