//! Whether a host can make clones of a descriptor.
//!
//! Device state is a private language of one build of one hypervisor: another
//! version or accelerator loads it wrongly or not at all, and tells so only
//! after it has begun. So everything must be equal.

use super::error::{DescriptorError, Mismatch};
use super::{Architecture, Descriptor};

/// What a host offers to clones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCapabilities {
    /// Its processors'.
    pub architecture: Architecture,
    /// Short name of its hypervisor driver.
    pub driver: String,
    /// Version of its hypervisor, as in [`super::Driver::version`].
    pub driver_version: String,
    /// Short name for how guests run there.
    pub accelerator: String,
    /// Bytes of a page of guest memory.
    pub page_size: u32,
}

impl Descriptor {
    /// Whether clones of it can run on this host.
    ///
    /// # Errors
    /// [`DescriptorError::DoesNotFit`] with all that differs.
    pub fn check_fits(&self, host: &HostCapabilities) -> Result<(), DescriptorError> {
        let properties = [
            ("architecture", self.machine.architecture.to_string(), host.architecture.to_string()),
            ("hypervisor driver", self.driver.name.clone(), host.driver.clone()),
            ("hypervisor version", self.driver.version.clone(), host.driver_version.clone()),
            ("accelerator", self.driver.accelerator.clone(), host.accelerator.clone()),
            ("page size", self.machine.page_bytes.to_string(), host.page_size.to_string()),
        ];
        let differ = |(property, descriptor, host): (&'static str, String, String)| {
            (descriptor != host).then_some(Mismatch { property, descriptor, host })
        };
        match properties.into_iter().filter_map(differ).collect::<Vec<_>>() {
            mismatches if mismatches.is_empty() => Ok(()),
            mismatches => Err(DescriptorError::DoesNotFit(mismatches)),
        }
    }
}
