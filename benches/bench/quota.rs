//! A quota of processors for one process, by a control group of its own (Linux; whoever runs this needs the right to make one, as root
//! has it, and in version 2 the groups below the root need the controller `cpu`).

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::world::{Outcome, unique};

/// Where the kernel shows the groups that bound processors: in version 2 all in one tree, in version 1 in a tree of their own.
const GROUPS: &str = "/sys/fs/cgroup";
const GROUPS_OF_PROCESSORS: &str = "/sys/fs/cgroup/cpu";
/// How often a quota begins anew. A process that has used it up waits for the rest of it: at the 100 ms that are usual that would be most
/// of what is measured.
const PERIOD: Duration = Duration::from_millis(10);

/// The group of a process. It is removed with its owner, who has ended the process before.
pub struct Quota(PathBuf);

impl Quota {
    /// Holds a process, all its threads, to so many processors.
    pub fn of(process: u32, processors: f64) -> Outcome<Self> {
        Self::take(process, processors, false)
    }

    /// Also lets it run only where a processor is idle (`SCHED_IDLE`, of the group: that of a process counts within its group alone).
    pub fn when_idle(process: u32, processors: f64) -> Outcome<Self> {
        Self::take(process, processors, true)
    }

    fn take(process: u32, processors: f64, is_idle: bool) -> Outcome<Self> {
        let quota = Self::make(process, processors, is_idle);
        quota.map_err(|error| {
            format!("a process cannot be held to {processors} processors: {error}").into()
        })
    }

    fn make(process: u32, processors: f64, is_idle: bool) -> io::Result<Self> {
        let period = PERIOD.as_micros();
        let most = PERIOD.mul_f64(processors).as_micros();
        let is_one_tree = Path::new(GROUPS).join("cgroup.controllers").exists();
        let groups = Path::new(if is_one_tree {
            GROUPS
        } else {
            GROUPS_OF_PROCESSORS
        });
        let quota = Self(groups.join(unique("stockyard")));
        fs::create_dir(&quota.0)?;
        let set = |file: &str, value: String| fs::write(quota.0.join(file), value);
        if is_one_tree {
            set("cpu.max", format!("{most} {period}"))?;
        } else {
            set("cpu.cfs_period_us", period.to_string())?;
            set("cpu.cfs_quota_us", most.to_string())?;
        }
        if is_idle {
            set("cpu.idle", "1".to_owned())?;
        }
        // Last: a group that holds a process cannot be removed again.
        set("cgroup.procs", process.to_string())?;
        Ok(quota)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}
