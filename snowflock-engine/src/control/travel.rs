//! A checkpoint on its way to another host: what is said of it, and a copy made from that.
//!
//!   host of the parent                                      another host
//!   checkpoint --distribute--> pages, blocks ~~~mcdist~~~> image file, copy of the disk
//!              --export------> parcel ~~~control line~~~~> --import--> checkpoint
//!
//! A parcel names no file: the other host has the base image of the disk itself, and gets all layers above
//! it whole before any clone starts; pages of memory come as they are needed.
//!
//! ```text
//! parcel  "SFCK"  version (u16 BE)  length of the header (u32 BE)  header: JSON  descriptor file
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::EngineError;
use super::checkpoint::Checkpoint;
use super::host::Host;
use super::memory_server::{MemoryServer, RemoteView};
use super::view::PauseTimes;
use crate::descriptor::limits::{MAX_FILE, MAX_LAYERS};
use crate::descriptor::{Descriptor, DiskLayer, PageKey};
use crate::hypervisor::FrozenDisk;
use crate::mcdist::distributor::DistributorConfig;
use crate::mcdist::fetcher::FetcherConfig;
use crate::mcdist::seal::{DistributionId, Key};
use crate::memory::PageIndex;
use crate::memory::frozen::FrozenView;
use crate::memory::image::Image;
use crate::memory::layers::{DiskCopy, Layers};
use crate::memory::protocol::CheckpointId;
use crate::network::identity::CloneId;

const MAGIC: &[u8; 4] = b"SFCK";
const VERSION: u16 = 1;
const FIXED: usize = 10;
/// A working set of 65,536 pages takes half of it.
const MAX_HEADER: usize = 1 << 20;
/// No parcel is longer.
pub const MAX_PARCEL: usize = FIXED + MAX_HEADER + MAX_FILE;
/// A copy of a disk of which nothing comes for so long will not be completed.
const STALLED: Duration = Duration::from_secs(20);

/// Without news, whether blocks can be stored is looked at this often.
const LOOK: Duration = Duration::from_secs(2);

/// Why a checkpoint cannot be taken to or from another host.
#[derive(Debug, thiserror::Error)]
pub enum TravelError {
    /// There is no network between hosts.
    #[error("this host shares no pages with others: give it a section `between_hosts`")]
    NoNetwork,
    /// It was made here, from a checkpoint of another host, or of a clone.
    #[error("checkpoint {} cannot travel: only one of the parent, on its own host, can", .0.0)]
    Homeless(CheckpointId),
    /// The bytes are no parcel.
    #[error("this is no checkpoint of this release: {0}")]
    Damaged(String),
    /// It is for other hosts than this one.
    #[error("clones of this checkpoint cannot live here: {}", .0.join("; "))]
    Foreign(Vec<String>),
    /// The disk comes and cannot be kept.
    #[error("{left} blocks of the disk are missing and cannot be stored")]
    NoRoom {
        /// Blocks that are missing.
        left: usize,
        /// The system's reason.
        source: io::Error,
    },
    /// The disk does not come.
    #[error("{left} blocks of the disk are still missing, and none has come for {STALLED:?}")]
    Stalled {
        /// Blocks that are missing.
        left: usize,
    },
}

/// A layer of a disk above its base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerFile {
    format: String,
    bytes: u64,
}

/// How the pages of a checkpoint are had from its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Distributed {
    distribution: u64,
    sender: SocketAddrV4,
    group: SocketAddrV4,
    /// Layers of the disk that are distributed, newest first.
    layers: Vec<LayerFile>,
    /// SHA-256 of the file below them, in hexadecimal digits; none for a VM without a base image.
    base: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    from: Distributed,
    /// Pages that the first clone touched until it was ready, in order.
    working_set: Vec<u32>,
}

/// A checkpoint as it is told to other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    header: Header,
    descriptor: Descriptor,
}

impl Parcel {
    fn encode(
        from: Distributed,
        working_set: &[PageIndex],
        descriptor: &[u8],
    ) -> Result<Vec<u8>, EngineError> {
        let header = Header { from, working_set: working_set.iter().map(|page| page.0).collect() };
        let header = serde_json::to_vec(&header).map_err(io::Error::from)?;
        let length = u32::try_from(header.len()).map_err(io::Error::other)?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(descriptor);
        Ok(bytes)
    }

    /// Reads a parcel, distrusting it.
    ///
    /// # Errors
    /// What is wrong with it: [`TravelError::Damaged`], or an error of its descriptor.
    pub fn decode(bytes: &[u8]) -> Result<Self, EngineError> {
        let damaged = |why: String| TravelError::Damaged(why);
        let (fixed, rest) = bytes.split_at_checked(FIXED).ok_or_else(|| damaged("it is cut off".into()))?;
        if fixed[..4] != *MAGIC {
            return Err(damaged(format!("it begins with {:02x?}", &fixed[..4])).into());
        }
        let version = u16::from_be_bytes([fixed[4], fixed[5]]);
        if version != VERSION {
            return Err(damaged(format!("it has version {version}, this is {VERSION}")).into());
        }
        let length = u32::from_be_bytes([fixed[6], fixed[7], fixed[8], fixed[9]]) as usize;
        if length > MAX_HEADER {
            return Err(
                damaged(format!("a header of {length} bytes, at most {MAX_HEADER} are allowed")).into()
            );
        }
        let (header, descriptor) =
            rest.split_at_checked(length).ok_or_else(|| damaged("it is cut off in its header".into()))?;
        let header: Header = serde_json::from_slice(header).map_err(|error| damaged(error.to_string()))?;
        if header.from.layers.len() > MAX_LAYERS {
            return Err(damaged(format!("{} layers of disk", header.from.layers.len())).into());
        }
        Ok(Self { header, descriptor: Descriptor::decode(descriptor)? })
    }

    /// All in which this host differs from what the checkpoint needs.
    fn misfits(&self, host: &Host) -> Vec<String> {
        let ours = host.machine_shape();
        let network = &self.descriptor.network;
        let differences = [
            ("vm.name", network.parent.clone(), host.name.clone()),
            ("vm.network", network.block.to_string(), host.network.block().to_string()),
            ("vm.memory_mib", mib(self.descriptor.machine.memory_bytes), mib(ours.memory_bytes)),
            ("vm.vcpus", self.descriptor.machine.vcpus.to_string(), ours.vcpus.to_string()),
            ("vm.disk", base_shown(&self.header.from.base), base_shown(&host.base)),
        ];
        let differ = |(key, theirs, ours): (&str, String, String)| {
            (theirs != ours).then(|| format!("{key}: {theirs} on the parent's host, {ours} here"))
        };
        differences.into_iter().filter_map(differ).collect()
    }
}

fn mib(bytes: u64) -> String {
    (bytes >> 20).to_string()
}

fn base_shown(base: &Option<String>) -> String {
    base.as_ref().map_or_else(|| "no file".into(), |digest| format!("a file with SHA-256 {digest}"))
}

/// The digest of a base image, which tells whether two hosts have the same one.
///
/// # Errors
/// The file cannot be read.
pub(super) fn digest(path: &Path) -> io::Result<String> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 20]);
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => context.update(&buffer[..count]),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes the parent's memserver give the pages of a checkpoint to other hosts.
///
/// # Errors
/// A layer of the disk cannot be read, or the memserver cannot send.
pub(super) fn distribute(
    host: &Host,
    keeper: &Arc<MemoryServer>,
    view: &FrozenView,
    disk: &FrozenDisk,
    key: &PageKey,
) -> Result<Option<Distributed>, EngineError> {
    let Some(between) = &host.between else { return Ok(None) };
    let own = disk.layers.iter().filter(|layer| layer.path != host.image.disk);
    let mut layers = Vec::new();
    let mut files = Vec::new();
    for layer in own {
        let what = || format!("read the disk layer {}", layer.path.display());
        let opened = File::open(&layer.path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = opened.map_err(|source| EngineError::System { what: what(), source })?;
        layers.push(LayerFile { format: layer.format.clone(), bytes });
        files.push(file);
    }
    let random = Host::random_bytes()?;
    let distribution = u64::from_le_bytes(std::array::from_fn(|i| random[i]));
    let to = DistributorConfig {
        distribution: DistributionId(distribution),
        key: Key::from_bytes(key.0),
        address: SocketAddrV4::new(between.address, 0),
        group: between.group,
        split: None,
    };
    let sender = keeper.distribute(view.duplicate()?, Layers::of(files)?, to)?;
    Ok(Some(Distributed { distribution, sender, group: between.group, layers, base: host.base.clone() }))
}

impl Distributed {
    pub(super) fn id(&self) -> DistributionId {
        DistributionId(self.distribution)
    }
}

impl Checkpoint {
    /// What another host needs to make clones of it.
    ///
    /// # Errors
    /// It does not travel, or its descriptor cannot be read.
    pub(super) fn export(&self, working_set: &[PageIndex]) -> Result<Vec<u8>, EngineError> {
        let from = self.distributed.clone().ok_or(TravelError::Homeless(self.id))?;
        Parcel::encode(from, working_set, &std::fs::read(&self.descriptor)?)
    }

    /// Makes clones of another host's checkpoint possible here. Blocks until the layers of its disk are here.
    ///
    /// # Errors
    /// The parcel is damaged or for other hosts, or the disk does not come; nothing is left then.
    pub(super) fn import(host: &Host, id: CheckpointId, parcel: &[u8]) -> Result<Self, EngineError> {
        let parcel = Parcel::decode(parcel)?;
        parcel.descriptor.check_fits(&host.capabilities())?;
        let misfits = parcel.misfits(host);
        if !misfits.is_empty() {
            return Err(TravelError::Foreign(misfits).into());
        }
        let folder = host.folder.join(format!("checkpoint-{}", id.0));
        let made = Self::copy(host, id, parcel, &folder);
        if made.is_err() {
            let _ = std::fs::remove_dir_all(&folder);
        }
        made
    }

    fn copy(host: &Host, id: CheckpointId, parcel: Parcel, folder: &Path) -> Result<Self, EngineError> {
        let Parcel { header: Header { from, working_set }, mut descriptor } = parcel;
        let between = host.between.as_ref().ok_or(TravelError::NoNetwork)?;
        let (mut layers, files) = holes(folder, &from.layers)?;
        layers.extend(
            from.base
                .is_some()
                .then(|| DiskLayer { path: host.image.disk.clone(), format: host.image.disk_format.clone() }),
        );
        let image = Arc::new(Image::new(
            (descriptor.machine.memory_bytes / u64::from(descriptor.machine.page_bytes)) as u32,
        )?);
        let disk = DiskCopy::new(Layers::of(files)?)?;
        let fetch = FetcherConfig {
            distribution: from.id(),
            key: Key::from_bytes(descriptor.checkpoint.page_key.0),
            sender: from.sender,
            group: from.group,
            interface: between.address,
            fills: between.fill,
        };
        let served = RemoteView { image: image.duplicate()?, disk: disk.duplicate()?, from: fetch };
        let memtap = MemoryServer::start_remote(host.programs.memtap.clone(), host.folder.clone(), served)?;
        wait_for(&disk, host, &memtap)?;
        let pages: Vec<PageIndex> = working_set.into_iter().map(PageIndex).collect();
        if let Err(error) = memtap.prefetch(&pages) {
            tracing::warn!(%error, "the working set is not prefetched");
        }
        descriptor.disk.layers.clone_from(&layers);
        let path = folder.join("descriptor.sfvd");
        descriptor.write(&path)?;
        let descriptor_bytes = std::fs::metadata(&path)?.len();
        Ok(Self {
            id,
            of: CloneId::PARENT,
            image,
            disk: FrozenDisk { layers, bytes: descriptor.disk.bytes },
            descriptor: path,
            device_state_bytes: descriptor.device_state.len() as u64,
            descriptor_bytes,
            memtap,
            view: None,
            pause: PauseTimes::default(),
            asked_by: None,
            keeper: None,
            distributed: None,
            folder: Some(folder.to_owned()),
            shed: Vec::new(),
        })
    }
}

/// Files of these lengths with nothing in them.
fn holes(folder: &Path, layers: &[LayerFile]) -> Result<(Vec<DiskLayer>, Vec<File>), EngineError> {
    let system = |path: &Path| {
        let what = format!("make room for a disk layer at {}", path.display());
        move |source| EngineError::System { what, source }
    };
    std::fs::create_dir_all(folder).map_err(system(folder))?;
    let mut made = (Vec::new(), Vec::new());
    for (number, layer) in layers.iter().enumerate() {
        let path: PathBuf = folder.join(format!("layer-{number}"));
        let file = File::options().create_new(true).read(true).write(true).open(&path);
        let sized = file.and_then(|file| file.set_len(layer.bytes).map(|()| file));
        made.1.push(sized.map_err(system(&path))?);
        made.0.push(DiskLayer { path, format: layer.format.clone() });
    }
    Ok(made)
}

/// Why the last block that came could not be stored.
fn refused_by_store(memtap: &Arc<MemoryServer>) -> Option<io::Error> {
    let fetcher = memtap.stats().ok()?.pager.fetcher?;
    fetcher.store_errno.map(io::Error::from_raw_os_error)
}

/// Waits until all blocks of a disk have come.
fn wait_for(disk: &DiskCopy, host: &Host, memtap: &Arc<MemoryServer>) -> Result<(), EngineError> {
    let (mut left, mut news) = (disk.absent().count(), Instant::now());
    let mut look = LOOK;
    while left > 0 {
        if host.closing.load(Ordering::Relaxed) {
            return Err(EngineError::Stopped);
        }
        if news.elapsed() > STALLED {
            return Err(TravelError::Stalled { left }.into());
        }
        if news.elapsed() > look {
            look += LOOK;
            if let Some(source) = refused_by_store(memtap) {
                return Err(TravelError::NoRoom { left, source }.into());
            }
        }
        std::thread::sleep(Duration::from_millis(1));
        let now = disk.absent().count();
        if now < left {
            (left, news, look) = (now, Instant::now(), LOOK);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTOR: &[u8] = include_bytes!("../descriptor/fixtures/version-1.sfvd");

    fn parcel() -> Vec<u8> {
        let address = "10.9.0.1:7076".parse().unwrap();
        let layers = vec![LayerFile { format: "qcow2".into(), bytes: 196_616 }];
        let from =
            Distributed { distribution: 7, sender: address, group: address, layers, base: Some("ab".into()) };
        Parcel::encode(from, &[PageIndex(3), PageIndex(9)], DESCRIPTOR).unwrap()
    }

    #[test]
    fn a_parcel_comes_back_as_it_was() {
        let read = Parcel::decode(&parcel()).unwrap();
        assert_eq!(read.header.working_set, [3, 9]);
        assert_eq!(read.header.from.layers[0].bytes, 196_616);
        assert_eq!(read.descriptor, Descriptor::decode(DESCRIPTOR).unwrap());
    }

    #[test]
    fn a_parcel_that_is_cut_off_foreign_or_of_another_version_is_refused() {
        let good = parcel();
        for end in 0..good.len() {
            assert!(Parcel::decode(&good[..end]).is_err(), "with {end} of {} bytes", good.len());
        }
        for (at, why) in [(0, "begins with"), (5, "has version"), (6, "a header of"), (10, "no checkpoint")] {
            let mut damaged = good.clone();
            damaged[at] ^= 0x41;
            let said = Parcel::decode(&damaged).unwrap_err().to_string();
            assert!(said.contains(why), "{at}: {said}");
        }
    }

    #[test]
    fn a_digest_is_of_the_whole_file_and_a_file_that_is_not_there_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, "abc").unwrap();
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(&path).unwrap(), sha256);
        assert!(digest(&folder.path().join("none")).is_err());
    }
}
