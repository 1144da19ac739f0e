//! Making an image, in a directory beside its final place that is renamed when all is done.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;

use crate::base::{self, Base};
use crate::error::{ImageError, OnFile};
use crate::inputs::Inputs;
use crate::manifest::{self, Disk, Image, MANIFEST_VERSION, Manifest};
use crate::place::{Tree, put_in_place};
use crate::spec::{OwnDisk, Packages, Placement, Source, Spec, parent_of, root_device};
use crate::{commands, disk, finish, initrd};

/// The command line of a guest made of packages, in groups:
/// - the root disk, the console, and silence on it;
/// - what a guest of one web server has no use for: mitigations guard its own processes from each
///   other, and under emulation they and accounting are pure cost;
/// - the time stamp counter as the clock: an emulated CPU fails the kernel's test of it, and the
///   clock taken instead leaves the emulated CPU at every reading;
/// - no IPv6 addresses until one is set (the protocol itself is there);
/// - devices that are not there are not looked for.
const CMDLINE: &str = concat!(
    "root=/dev/vda rw console=ttyS0 quiet loglevel=4 panic=-1 systemd.show_status=0 systemd.log_level=warning ",
    "mitigations=off audit=0 apparmor=0 selinux=0 psi=0 cgroup.memory=nokmem,nosocket nowatchdog noautogroup ",
    "cryptomgr.notests random.trust_cpu=on rcupdate.rcu_expedited=1 tsc=reliable no_timer_check ",
    "ipv6.disable_ipv6=1 net.ifnames=0 8250.nr_uarts=1 i8042.noaux=1 i8042.nopnp=1",
);
/// What a build from packages holds at its peak: tree, archive, package files and disk.
pub(crate) const PACKAGES_PEAK_MIB: u64 = 2048;
const PROGRAMS: [(&str, &str); 4] =
    [("mmdebstrap", "mmdebstrap"), ("mkfs.ext4", "e2fsprogs"), ("tar", "tar"), ("cp", "coreutils")];
const MIB: u64 = 1 << 20;

/// A built image.
#[derive(Debug)]
pub struct Built {
    /// The image, checked.
    pub image: Image,
    /// An image of the same inputs was there already and nothing was built.
    pub reused: bool,
}

/// Builds the image, or finds that it is there. Waits for another build in the same directory.
///
/// # Errors
/// Everything in [`ImageError`] but `Missing` and `Invalid`; an older image then stays as it was.
pub fn build(spec: &Spec) -> Result<Built, ImageError> {
    spec.check()?;
    let parent = parent_of(&spec.output);
    let _lock = lock(parent)?;
    let (inputs, base) = inputs(spec)?;
    if !spec.fresh
        && let Ok(image) = Image::open(&spec.output)
        && image.inputs() == inputs
    {
        return Ok(Built { image, reused: true });
    }
    replaceable(&spec.output)?;
    sweep(parent)?;
    let work = Work::new(&spec.output)?;
    let image = work.dir.join("image");
    fs::create_dir(&image).on("creating", &image)?;
    let manifest = match (&spec.source, base) {
        (Source::Packages(packages), Some(base)) => {
            Order { packages, base, fresh: spec.fresh }.fill(&image, &work, inputs)?
        }
        (Source::Packages(_), None) => unreachable!("inputs() gives packages a base"),
        (Source::Disk(own), _) => own.fill(&image, inputs)?,
    };
    let manifest = Manifest { name: name_of(&spec.output), ..manifest };
    write_manifest(&image, &manifest)?;
    Image::open(&image)?;
    put_in_place(&image, &spec.output)?;
    Ok(Built { image: Image::open(&spec.output)?, reused: false })
}

/// One build at a time in a directory: they share the kept package trees. Locks the directory itself,
/// so that no lock file stays behind.
pub(crate) fn lock(parent: &Path) -> Result<Flock<File>, ImageError> {
    let dir = File::open(parent).on("opening", parent)?;
    Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, e)| e.into()).on("locking", parent)
}

/// The digest of the inputs, and for packages their base.
fn inputs(spec: &Spec) -> Result<(String, Option<Base>), ImageError> {
    let mut inputs = Inputs::new(concat!("flurry-image ", env!("CARGO_PKG_VERSION")));
    let base = match &spec.source {
        Source::Packages(packages) => Some(packages.add_to(&mut inputs)?),
        Source::Disk(own) => {
            own.add_to(&mut inputs)?;
            None
        }
    };
    Ok((inputs.digest(), base))
}

impl Packages {
    fn add_to(&self, inputs: &mut Inputs) -> Result<Base, ImageError> {
        let base = Base::of(self)?;
        base.add_to(inputs)?;
        finish::add_to(inputs);
        inputs.add("cmdline", CMDLINE.as_bytes());
        inputs.add("disk_mib", &self.disk_mib.to_le_bytes());
        inputs.add_tree("agent", &self.agent)?;
        if let Some(app) = &self.demo_app {
            inputs.add_tree("demo_app", app)?;
        }
        for copied in &self.copy {
            inputs.add_tree(&copied.to.to_string_lossy(), &copied.from)?;
        }
        Ok(base)
    }
}

impl OwnDisk {
    fn add_to(&self, inputs: &mut Inputs) -> Result<(), ImageError> {
        for (label, file) in [("disk", &self.disk), ("kernel", &self.kernel), ("initrd", &self.initrd)] {
            inputs.add_tree(label, file)?;
        }
        inputs.add("cmdline", self.cmdline.as_bytes());
        Ok(())
    }

    fn fill(&self, image: &Path, inputs: String) -> Result<Manifest, ImageError> {
        let (format, bytes) =
            disk::probe(&self.disk).map_err(|why| ImageError::BadSpec(vec![format!("disk: {why}")]))?;
        let disk_file = format!("disk.{}", format.name());
        for (from, to) in
            [(&self.disk, disk_file.as_str()), (&self.kernel, "vmlinuz"), (&self.initrd, "initrd")]
        {
            let to = image.join(to);
            match self.placement {
                Placement::Link => fs::hard_link(from, &to).on("linking", from)?,
                Placement::Copy => commands::run("cp", |c| {
                    c.args(["--reflink=auto", "--sparse=auto", "--"]).arg(from).arg(&to);
                })?,
            }
        }
        Ok(Manifest {
            version: MANIFEST_VERSION,
            name: String::new(),
            kernel: "vmlinuz".into(),
            initrd: "initrd".into(),
            disk: Disk { file: disk_file, format, bytes },
            root_device: root_device(&self.cmdline).unwrap_or_default().into(),
            cmdline: self.cmdline.clone(),
            inputs,
        })
    }
}

/// A build from packages under way.
struct Order<'a> {
    packages: &'a Packages,
    base: Base,
    fresh: bool,
}

impl Order<'_> {
    fn fill(&self, image: &Path, work: &Work, inputs: String) -> Result<Manifest, ImageError> {
        let uid = nix::unistd::geteuid();
        if !uid.is_root() {
            return Err(ImageError::NotRoot(uid.as_raw()));
        }
        commands::require(&PROGRAMS)?;
        room(&work.dir, PACKAGES_PEAK_MIB)?;
        let tree = self.unpack(work)?;
        let (kernel, modules) = finish::kernel(&tree)?;
        fs::copy(&kernel, image.join("vmlinuz")).on("copying", &kernel)?;
        let archive = initrd::archive(&self.packages.agent, &modules, &initrd::GUEST_DRIVERS)?;
        fs::write(image.join("initrd"), archive).on("writing", &image.join("initrd"))?;
        finish::finish(&tree, self.packages)?;
        self.make_disk(&tree, &image.join("disk.raw"))?;
        let bytes = u64::from(self.packages.disk_mib) * MIB;
        Ok(Manifest {
            version: MANIFEST_VERSION,
            name: String::new(),
            kernel: "vmlinuz".into(),
            initrd: "initrd".into(),
            disk: Disk { file: "disk.raw".into(), format: disk::DiskFormat::Raw, bytes },
            root_device: root_device(CMDLINE).unwrap_or_default().into(),
            cmdline: CMDLINE.into(),
            inputs,
        })
    }

    fn unpack(&self, work: &Work) -> Result<Tree, ImageError> {
        let archive = self.base.archive(&work.cache, &work.dir, self.fresh)?;
        let root = work.dir.join("tree");
        fs::create_dir(&root).on("creating", &root)?;
        commands::run("tar", |c| {
            c.arg("-C")
                .arg(&root)
                .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
                .arg(&archive);
        })?;
        Ok(Tree::new(root))
    }

    /// No journal: after a crash a guest is thrown away, not repaired. No checksums: they cost an
    /// emulated CPU more than they tell about a file on the host.
    fn make_disk(&self, tree: &Tree, disk: &Path) -> Result<(), ImageError> {
        commands::run("mkfs.ext4", |c| {
            c.args(["-q", "-F", "-L", "root", "-m", "0", "-O", "^has_journal,^metadata_csum"]);
            c.args(["-E", "lazy_itable_init=0,nodiscard", "-d"]).arg(tree.root()).arg(disk);
            c.arg(format!("{}M", self.packages.disk_mib));
        })
    }
}

pub(crate) fn room(dir: &Path, needed_mib: u64) -> Result<(), ImageError> {
    let about = statvfs(dir).map_err(std::io::Error::from).on("asking for free space at", dir)?;
    let free_mib = about.blocks_available().saturating_mul(about.fragment_size()) / MIB;
    if free_mib >= needed_mib {
        Ok(())
    } else {
        Err(ImageError::NoRoom { dir: dir.to_path_buf(), needed_mib, free_mib })
    }
}

/// An existing directory is replaced only if it is an image or empty: never the user's other files.
fn replaceable(output: &Path) -> Result<(), ImageError> {
    let is_ours = output.join(manifest::FILE).exists();
    let is_empty = fs::read_dir(output).is_ok_and(|mut dir| dir.next().is_none());
    if !output.exists() || is_ours || is_empty {
        return Ok(());
    }
    let complaint = format!("output: {} exists and is no image; name another directory", output.display());
    Err(ImageError::BadSpec(vec![complaint]))
}

fn name_of(output: &Path) -> String {
    output.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn write_manifest(image: &Path, manifest: &Manifest) -> Result<(), ImageError> {
    let path = image.join(manifest::FILE);
    let text = serde_json::to_string_pretty(manifest).map_err(std::io::Error::from).on("encoding", &path)?;
    fs::write(&path, text + "\n").on("writing", &path)
}

const WORK_PREFIX: &str = ".flurry-image-";

/// The directory of an unfinished build; it goes with this value.
pub(crate) struct Work {
    pub(crate) dir: PathBuf,
    pub(crate) cache: PathBuf,
}

impl Work {
    pub(crate) fn new(output: &Path) -> Result<Self, ImageError> {
        let parent = parent_of(output);
        let dir = parent.join(format!("{WORK_PREFIX}{}", std::process::id()));
        fs::create_dir(&dir).on("creating", &dir)?;
        // Absolute: programs are told of it as their TMPDIR.
        let dir = dir.canonicalize().on("resolving", &dir)?;
        Ok(Self { cache: parent.join(base::CACHE), dir })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(e) = remove_work(&self.dir) {
            eprintln!("flurry: {e}");
        }
    }
}

/// Removes what builds left behind that were killed. The lock is held, so none of them is alive.
pub(crate) fn sweep(parent: &Path) -> Result<(), ImageError> {
    let entries = fs::read_dir(parent).on("listing", parent)?;
    let left = entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(WORK_PREFIX));
    left.map(|e| e.path()).try_for_each(|dir| remove_work(&dir))
}

/// A killed mmdebstrap may leave this machine's own /dev mounted in there: then nothing is removed.
fn remove_work(dir: &Path) -> Result<(), ImageError> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let real = dir.canonicalize().on("resolving", dir)?;
    if let Some(mount) =
        mounts.lines().filter_map(|l| l.split(' ').nth(1)).find(|at| Path::new(at).starts_with(&real))
    {
        let why = std::io::Error::other(format!("{mount} is still mounted; unmount it first"));
        return Err(why).on("removing", dir);
    }
    fs::remove_dir_all(dir).on("removing", dir)
}

#[cfg(test)]
mod tests;
