use crate::stdio::Console;
use berth_cgroup::{CgroupError, OomWatch};
use berth_shim_protocol::{Create, Failure, Stats, oci};
use berth_sys::pidfd::ExitStatus;
use nix::{errno::Errno, unistd::Pid};
use std::{os::fd::OwnedFd, path::Path};
pub(crate) struct Container {}
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}
impl Container {
    pub(crate) fn create(_: &Create, _: Option<OwnedFd>, _: &Path) -> Result<(Self, Console), Failure> {
        todo!()
    }
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        todo!()
    }
    pub(crate) fn exec(&self, _: &oci::Process, _: bool, _: bool) -> Result<(Child, Console), Failure> {
        todo!()
    }
    pub(crate) fn pid(&self) -> i32 {
        todo!()
    }
    pub(crate) fn oom_watch(&self) -> Option<OomWatch> {
        todo!()
    }
    pub(crate) fn cgroup_path(&self) -> &Path {
        todo!()
    }
    pub(crate) fn try_wait(&self) -> Option<ExitStatus> {
        todo!()
    }
    pub(crate) fn kill(&self, _: i32) -> Result<(), Errno> {
        todo!()
    }
    pub(crate) fn kill_all(&self, _: i32) -> Result<(), Failure> {
        todo!()
    }
    pub(crate) fn kill_rest(&self) -> Result<(), CgroupError> {
        todo!()
    }
    pub(crate) fn pause(&self) -> Result<(), Failure> {
        todo!()
    }
    pub(crate) fn resume(&self) -> Result<(), Failure> {
        todo!()
    }
    pub(crate) fn update(&self, _: &oci::LinuxResources) -> Result<(), Failure> {
        todo!()
    }
    pub(crate) fn stats(&self) -> Result<Stats, Failure> {
        Ok(crate::stats::translate(todo!()))
    }
    pub(crate) fn pids(&self) -> Result<Vec<i32>, Failure> {
        todo!()
    }
    pub(crate) fn new_oom_kills(&mut self) -> bool {
        todo!()
    }
    pub(crate) fn remove(self) -> Vec<String> {
        todo!()
    }
}
