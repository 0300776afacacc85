//! Capabilities (capabilities(7)).

use berth_spec::{CapabilityPlan, CapabilitySet};
use caps::{CapSet, Capability, CapsHashSet};

use crate::error::Fault;

/// Our own bounding set as bits: what a container can be given at most. Asking the kernel once for each capability is a
/// tenth of the work of reading the one line of procfs, for which it formats fifty others.
pub(crate) fn bounding() -> u64 {
    let has = |capability: &Capability| caps::has_cap(None, CapSet::Bounding, *capability).unwrap_or(false);
    caps::all()
        .iter()
        .filter(|capability| has(capability))
        .fold(0, |set, capability| set | capability.bitmask())
}

fn library_set(set: CapabilitySet) -> CapsHashSet {
    caps::all().into_iter().filter(|capability| set.0 & capability.bitmask() != 0).collect()
}

fn failed(what: &str) -> impl Fn(caps::errors::CapsError) -> Fault {
    move |error| Fault::new(format!("set {what} capabilities: {error}"))
}

/// Drops from the bounding set what is not in `set`.
pub(super) fn bound(set: CapabilitySet) -> Result<(), Fault> {
    let mine = bounding();
    let surplus = |capability: &Capability| mine & !set.0 & capability.bitmask() != 0;
    for capability in caps::all().into_iter().filter(surplus) {
        caps::drop(None, CapSet::Bounding, capability).map_err(failed("bounding"))?;
    }
    Ok(())
}

/// Sets the other four. Inheritable before permitted, which it may not exceed; effective before permitted shrinks;
/// ambient last, which needs both.
pub(super) fn set(plan: &CapabilityPlan) -> Result<(), Fault> {
    let apply = |which, set, what| caps::set(None, which, &library_set(set)).map_err(failed(what));
    apply(CapSet::Inheritable, plan.inheritable, "inheritable")?;
    apply(CapSet::Effective, plan.effective, "effective")?;
    apply(CapSet::Permitted, plan.permitted, "permitted")?;
    // Not by `caps::set`, which asks the kernel twice about every capability there is.
    caps::clear(None, CapSet::Ambient).map_err(failed("ambient"))?;
    for capability in library_set(plan.ambient) {
        caps::raise(None, CapSet::Ambient, capability).map_err(failed("ambient"))?;
    }
    Ok(())
}

/// Does it with all permitted capabilities in effect. Between the change of user and [`set`] none are.
pub(super) fn with_permitted<T>(act: impl FnOnce() -> T) -> Result<T, Fault> {
    let read = |which| caps::read(None, which).map_err(failed("effective"));
    let (permitted, effective) = (read(CapSet::Permitted)?, read(CapSet::Effective)?);
    let apply = |set| caps::set(None, CapSet::Effective, set).map_err(failed("effective"));
    apply(&permitted)?;
    let done = act();
    apply(&effective)?;
    Ok(done)
}
