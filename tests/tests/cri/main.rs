//! Pods through the CRI, as a kubelet drives them: a gRPC client on the daemon's socket.

mod calls;
mod checkpoint;
mod classes;
mod cni;
mod forward;
mod harness;
mod lives;
mod nri;
mod plugin;
mod restart;
mod streams;
