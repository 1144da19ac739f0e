use snowflock_engine::hypervisor::qemu::*;
use snowflock_engine::hypervisor::*;
use snowflock_engine::memory::{frozen::*, image::*, protocol::*, remote::*};
use snowflock_engine::network::identity::*;
use snowflock_engine::network::*;
use snowflock_engine::*;
use std::io::*;
use std::path::*;
use std::time::*;
fn main() {
    tracing_subscriber::fmt().init();
    let _ = Network::remove("spike");
    let folder = PathBuf::from("/tmp/spike");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let net = Network::create("spike", "10.117.0.0/16".parse().unwrap()).unwrap();
    let bin = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_path_buf();
    let image_dir = PathBuf::from(std::env::args().nth(1).unwrap());
    let mib: u32 = std::env::args().nth(2).map_or(256, |v| v.parse().unwrap());
    let programs = Programs { qemu: "qemu-system-x86_64".into(), shim: bin.join("libsnowflock_shim.so") };
    let t = Instant::now();
    let choice =
        accelerator::choose(Wish::Auto, &programs.qemu, &image_dir.join("vmlinuz"), &folder).unwrap();
    println!("{choice:?} {:?}", t.elapsed());
    let machine = Machine { memory_mib: mib, vcpus: 1 };
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(image_dir.join("image.json")).unwrap()).unwrap();
    let bytes = manifest["disk"]["bytes"].as_u64().unwrap();
    let qemu = Qemu::new(programs, machine, choice.accelerator, bytes, &folder).unwrap();
    let place = |id: u32| {
        let f = folder.join(id.to_string());
        std::fs::create_dir_all(&f).unwrap();
        Place { id: CloneId(id), folder: f, port: net.add_port(CloneId(id)).unwrap() }
    };
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ident = |id: u32| wire::Identity {
        clone_id: id,
        clones: 1,
        unix_time_ns: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
        mac: mac_address("spike", CloneId(id)).0,
        ipv4: net.block().address(CloneId(id)),
        prefix_len: 16,
        gateway: net.block().gateway(),
        parent_ipv4: net.block().address(CloneId(0)),
        entropy: [7; 32],
        hostname: wire::Name::new("").unwrap(),
    };
    let get = |id: u32, path: &str| -> std::io::Result<String> {
        rt.block_on(async {
            use tokio::io::*;
            let mut s = tokio::time::timeout(
                Duration::from_millis(3000),
                net.dialer().dial((net.block().address(CloneId(id)), 80).into()),
            )
            .await
            .map_err(std::io::Error::other)??;
            s.write_all(format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").as_bytes()).await?;
            let mut o = String::new();
            tokio::time::timeout(Duration::from_millis(5000), s.read_to_string(&mut o))
                .await
                .map_err(std::io::Error::other)??;
            Ok(o)
        })
    };
    let t = Instant::now();
    let mut parent = qemu
        .boot(
            place(0),
            &BootImage {
                kernel: image_dir.join("vmlinuz"),
                initrd: image_dir.join("initrd"),
                cmdline: manifest["cmdline"].as_str().unwrap().into(),
                disk: image_dir.join("disk.raw"),
                disk_format: "raw".into(),
                disk_bytes: bytes,
            },
        )
        .unwrap();
    println!("started {:?}", t.elapsed());
    let mut agent = agent::Agent::new(parent.take_agent().unwrap());
    agent.wait_for_hello(Duration::from_secs(60)).unwrap();
    println!("hello {:?}", t.elapsed());
    println!("{:?}", agent.identify(&ident(0), Duration::from_secs(5)));
    println!("identified {:?}", t.elapsed());
    loop {
        match get(0, "/") {
            Ok(o) if o.starts_with("HTTP/1.1 200") => {
                println!("http {:?} {}", t.elapsed(), o);
                break;
            }
            Ok(_) => std::thread::sleep(Duration::from_millis(50)),
            Err(e) => {
                println!("{e}");
                std::thread::sleep(Duration::from_millis(50))
            }
        }
        if t.elapsed() > Duration::from_secs(30) {
            break;
        }
    }
    for _ in 0..3 {
        for i in 0..5 {
            let _ = get(0, &format!("/item/{i}"));
        }
    }
    std::thread::sleep(Duration::from_secs(3));
    let log = || std::fs::File::create("/tmp/spike/mem.log").unwrap();
    let (memserver, _c1) = MemoryProcess::start(&bin.join("flurry-memserver"), log()).unwrap();
    memserver.add_guest(&parent.memory().unwrap(), &[]).unwrap();
    let mut next = 1;
    for round in 0..3 {
        let mut shells: Vec<_> = (0..3)
            .map(|_| {
                next += 1;
                qemu.shell(place(next - 1)).unwrap()
            })
            .collect();
        let image = Image::new(mib * 256).unwrap();
        let mut dump = std::process::Command::new("ip").args(["netns","exec","flurry-spike","timeout","5","tcpdump","-leni","tap3","--immediate-mode"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let t = Instant::now();
        parent.pause().unwrap();
        let t_pause = t.elapsed();
        let disk = parent.freeze_disk().unwrap();
        let t_disk = t.elapsed();
        let state = parent.describe().unwrap();
        let t_desc = t.elapsed();
        let wp = memserver.freeze(GuestId(0), CheckpointId(round), &image).unwrap();
        let t_mem = t.elapsed();
        parent.resume().unwrap();
        println!(
            "pause {:?}: stop {t_pause:?} disk {t_disk:?} describe {t_desc:?} memory {t_mem:?} (wp {wp:?}); state {} bytes",
            t.elapsed(),
            state.len()
        );
        let (memtap, _c) = MemoryProcess::start(
            &bin.join("flurry-memtap"),
            std::fs::File::create("/tmp/spike/memtap.log").unwrap(),
        )
        .unwrap();
        let view = FrozenView {
            image: image.duplicate().unwrap(),
            source: Source::RamFile(parent.memory().unwrap().ram_file.unwrap()),
        };
        memtap.open(&view, false).unwrap();
        let mut clones = vec![];
        while let Some(shell) = shells.pop() {
            let t = Instant::now();
            let id = shell.id().0;
            let mut shell = shell;
            memtap.add_guest(&shell.adopt(image.file()).unwrap(), &[]).unwrap();
            let mut vm = shell.seed(&Seed { device_state: &state, disk: &disk }).unwrap();
            let t_seed = t.elapsed();
            vm.resume().unwrap();
            let t_resume = t.elapsed();
            let mut a = agent::Agent::new(vm.take_agent().unwrap());
            let r = a.identify(&ident(id), Duration::from_secs(5));
            let t_ident = t.elapsed();
            println!("{id} seed {t_seed:?} resume {t_resume:?} ident {r:?} {:?}", memtap.stats()); let o = match get(id, "/") { Ok(o) => o, Err(e) => { println!("{e} {:?}", memtap.stats()); std::process::Command::new("ip").args(["netns","exec","flurry-spike","sh","-c","true"]).status().unwrap(); { dump.wait().unwrap(); panic!() } } };
            println!(
                "clone {id}: seed {t_seed:?} resume {t_resume:?} ident {t_ident:?} ({r:?}) http {:?} {}",
                t.elapsed(),
                o.lines().next().unwrap()
            );
            println!("{:?}", memtap.stats().unwrap());
            clones.push((vm, a));
        }
        for (vm, _) in &clones {
            println!("private pages {:?}", vm.private_pages());
        }
        println!("{:?} parent {}", memserver.stats().unwrap(), get(0, "/").unwrap().lines().next().unwrap());
        memserver.thaw(GuestId(0), CheckpointId(round)).unwrap();
    }
    drop(parent);
    std::thread::sleep(Duration::from_millis(200));
    Network::remove("spike").unwrap();
}
