//! An image without a disk: a kernel, and an initial RAM disk of one program and its drivers.
//!
//! It holds `vmlinux`, `initrd` and `inputs`, the digest by which it is known to be up to date.

use std::fs;
use std::path::PathBuf;

use crate::base::Base;
use crate::build::{PACKAGES_PEAK_MIB, Work, lock, room, sweep};
use crate::error::{ImageError, OnFile};
use crate::inputs::Inputs;
use crate::place::{Tree, put_in_place};
use crate::spec::{Packages, parent_of};
use crate::{commands, elf, finish, initrd, kernel};

/// The file that holds the digest of the inputs.
const INPUTS: &str = "inputs";
const PROGRAMS: [(&str, &str); 2] = [("mmdebstrap", "mmdebstrap"), ("tar", "tar")];

/// An order for an image without a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appliance {
    /// Its directory. The parent must exist and be on a file system with room.
    pub output: PathBuf,
    /// The statically linked program that is process 1.
    pub program: PathBuf,
    /// Kernel modules, in the order of loading. A name may be followed by a blank and parameters.
    pub modules: Vec<String>,
    /// The Debian release that the kernel is from; `None` for this machine's own.
    pub suite: Option<String>,
    /// Packages beside the base: with those of a guest image beside it, both use one kept tree.
    pub packages: Vec<String>,
}

/// Builds the image, unless one of the same inputs is there: then `false`.
///
/// # Errors
/// As for [`crate::build()`].
pub fn build_appliance(order: &Appliance) -> Result<bool, ImageError> {
    order.check()?;
    let parent = parent_of(&order.output);
    let _lock = lock(parent)?;
    let base = Base::of(&order.as_packages())?;
    let digest = order.digest(&base)?;
    if fs::read_to_string(order.output.join(INPUTS)).is_ok_and(|kept| kept == digest) {
        return Ok(false);
    }
    if order.output.exists() && !order.output.join(INPUTS).exists() {
        let complaint =
            format!("output: {} exists and is no such image; name another", order.output.display());
        return Err(ImageError::BadSpec(vec![complaint]));
    }
    commands::require(&PROGRAMS)?;
    sweep(parent)?;
    let work = Work::new(&order.output)?;
    room(&work.dir, PACKAGES_PEAK_MIB)?;
    let image = work.dir.join("image");
    fs::create_dir(&image).on("creating", &image)?;
    order.fill(&base, &work, &image)?;
    fs::write(image.join(INPUTS), digest).on("writing", &image)?;
    put_in_place(&image, &order.output)?;
    Ok(true)
}

impl Appliance {
    fn check(&self) -> Result<(), ImageError> {
        let mut complaints = Vec::new();
        if !parent_of(&self.output).is_dir() {
            let parent = parent_of(&self.output).display();
            complaints.push(format!("output: {parent} is no directory; create it first"));
        }
        complaints.extend(elf::static_program_complaint("program", &self.program));
        if complaints.is_empty() { Ok(()) } else { Err(ImageError::BadSpec(complaints)) }
    }

    fn as_packages(&self) -> Packages {
        Packages {
            packages: self.packages.clone(),
            copy: Vec::new(),
            suite: self.suite.clone(),
            agent: self.program.clone(),
            demo_app: None,
            disk_mib: 0,
        }
    }

    fn digest(&self, base: &Base) -> Result<String, ImageError> {
        let mut inputs = Inputs::new(concat!("flurry-appliance vmlinux ", env!("CARGO_PKG_VERSION")));
        base.add_to(&mut inputs)?;
        inputs.add_tree("program", &self.program)?;
        self.modules.iter().for_each(|module| inputs.add("module", module.as_bytes()));
        Ok(inputs.digest())
    }

    /// Of the tree only the kernel and its modules are unpacked.
    fn fill(&self, base: &Base, work: &Work, image: &std::path::Path) -> Result<(), ImageError> {
        let archive = base.archive(&work.cache, &work.dir, false)?;
        let root = work.dir.join("tree");
        fs::create_dir(&root).on("creating", &root)?;
        commands::run("tar", |c| {
            c.arg("-C").arg(&root).arg("-xf").arg(&archive);
            c.args(["--wildcards", "./boot/*", "./lib", "./usr/lib/modules/*"]);
        })?;
        let (kernel, modules) = finish::kernel(&Tree::new(root))?;
        kernel::unpack(&kernel, &image.join("vmlinux"), &work.dir)?;
        let drivers: Vec<&str> = self.modules.iter().map(String::as_str).collect();
        let archive = initrd::archive(&self.program, &modules, &drivers)?;
        fs::write(image.join("initrd"), archive).on("writing", &image.join("initrd"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(folder: &std::path::Path) -> Appliance {
        Appliance {
            output: folder.join("no/router"),
            program: folder.join("init"),
            modules: vec!["virtio_net".into()],
            suite: Some("bookworm".into()),
            packages: Vec::new(),
        }
    }

    #[test]
    fn a_missing_program_and_a_missing_folder_are_both_complained_about() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let said = build_appliance(&order(folder.path())).expect_err("nothing is there").to_string();
        assert!(said.contains("output: ") && said.contains("program: "), "{said}");
    }

    #[test]
    fn a_folder_that_is_no_image_is_left_alone() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let output = folder.path().join("mine");
        fs::create_dir(&output).expect("directory");
        let program = std::env::current_exe().expect("this test");
        let order = Appliance { output: output.clone(), ..order(folder.path()) };
        // Whatever is said of the program, the folder stays.
        let said = build_appliance(&Appliance { program, ..order }).expect_err("refused").to_string();
        assert!(said.contains("the image cannot be built"), "{said}");
        assert!(output.is_dir());
    }
}
