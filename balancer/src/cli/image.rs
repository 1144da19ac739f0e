//! `flurry image`: makes guest images and shows what is in them. The work is in
//! the crate `flurry_image`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use flurry_image::{
    Appliance, Copied, Image, ImageError, OwnDisk, Packages, Placement, Source, Spec, build, build_appliance,
};

use super::{FAILED, WRONG_INPUT};

/// Make guest images, and see what is in one.
#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Make an image from Debian packages, or (with --disk) from a disk and kernel of your own.
    Build(Box<BuildArgs>),
    /// Make the image of the router VM, from a Debian kernel and one program.
    Router(RouterArgs),
    /// Check an image and say what is in it.
    Show {
        /// The image's directory.
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// The image's directory, to be made.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Build even if nothing has changed, for newer packages.
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    packages: PackageArgs,
    #[command(flatten)]
    own: OwnArgs,
}

#[derive(Debug, Args)]
struct RouterArgs {
    /// The image's directory, to be made.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The statically linked flurry-router.
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// A Debian package of the guest image beside it, whose kept package tree is then used.
    #[arg(long = "package", value_name = "NAME")]
    packages: Vec<String>,
    /// The Debian release that the kernel is from; this machine's own if left out.
    #[arg(long)]
    suite: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "From Debian packages")]
struct PackageArgs {
    /// The statically linked guest-agent.
    #[arg(long, value_name = "FILE", required_unless_present = "disk", conflicts_with = "disk")]
    agent: Option<PathBuf>,
    /// The statically linked demo application, to run behind nginx.
    #[arg(long, value_name = "FILE", conflicts_with = "disk")]
    demo_app: Option<PathBuf>,
    /// A Debian package to install; repeat it for more.
    #[arg(long = "package", value_name = "NAME", conflicts_with = "disk")]
    packages: Vec<String>,
    /// A file or directory to copy into the guest; repeat it for more.
    #[arg(long, value_name = "FROM:TO", value_parser = copied, conflicts_with = "disk")]
    copy: Vec<Copied>,
    /// The Debian release; this machine's own if left out.
    #[arg(long, conflicts_with = "disk")]
    suite: Option<String>,
    /// The size of the root disk in MiB; the file is sparse.
    #[arg(long, default_value_t = 1024, conflicts_with = "disk")]
    disk_mib: u32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "From a disk of your own")]
struct OwnArgs {
    /// The root disk, raw or qcow2.
    #[arg(long, value_name = "FILE", requires_all = ["kernel", "initrd", "cmdline"])]
    disk: Option<PathBuf>,
    /// The kernel.
    #[arg(long, value_name = "FILE", requires = "disk")]
    kernel: Option<PathBuf>,
    /// The initial RAM disk.
    #[arg(long, value_name = "FILE", requires = "disk")]
    initrd: Option<PathBuf>,
    /// The kernel command line, with root=.
    #[arg(long, requires = "disk")]
    cmdline: Option<String>,
    /// Hard links instead of copies; the files must not change afterwards.
    #[arg(long, requires = "disk")]
    link: bool,
}

fn copied(text: &str) -> Result<Copied, String> {
    let (from, to) = text.split_once(':').ok_or("must be FROM:TO")?;
    Ok(Copied { from: from.into(), to: to.into() })
}

/// Runs the sub-command.
pub fn main(args: ImageArgs) -> ExitCode {
    match run(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flurry image: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(why) = cause {
                eprintln!("  because: {why}");
                cause = why.source();
            }
            ExitCode::from(if matches!(error, ImageError::BadSpec(_)) { WRONG_INPUT } else { FAILED })
        }
    }
}

fn run(command: ImageCommand) -> Result<(), ImageError> {
    match command {
        ImageCommand::Show { dir } => show(&Image::open(&dir)?),
        ImageCommand::Router(args) => {
            let RouterArgs { output, program, packages, suite } = args;
            let order = router_vm::recipe::appliance(&program, &output);
            let built = build_appliance(&Appliance { packages, suite, ..order })?;
            println!("{}", if built { "built" } else { "unchanged, reused" });
        }
        ImageCommand::Build(args) => {
            let built = build(&spec(*args))?;
            println!("{}", if built.reused { "unchanged, reused" } else { "built" });
            show(&built.image);
        }
    }
    Ok(())
}

/// Clap has seen to it that all of one kind is given; what is missing is left empty for the check.
fn spec(args: BuildArgs) -> Spec {
    let BuildArgs { output, fresh, packages, own } = args;
    let source = match own.disk {
        Some(disk) => Source::Disk(OwnDisk {
            disk,
            kernel: own.kernel.unwrap_or_default(),
            initrd: own.initrd.unwrap_or_default(),
            cmdline: own.cmdline.unwrap_or_default(),
            placement: if own.link { Placement::Link } else { Placement::Copy },
        }),
        None => Source::Packages(Packages {
            packages: packages.packages,
            copy: packages.copy,
            suite: packages.suite,
            agent: packages.agent.unwrap_or_default(),
            demo_app: packages.demo_app,
            disk_mib: packages.disk_mib,
        }),
    };
    Spec { output, source, fresh }
}

fn show(image: &Image) {
    println!("image    {} ({})", image.name(), image.dir().display());
    println!("kernel   {}", image.kernel().display());
    println!("initrd   {}", image.initrd().display());
    let mib = image.disk_bytes() >> 20;
    println!("disk     {} ({}, {mib} MiB)", image.disk().display(), image.disk_format().name());
    println!("cmdline  {}", image.cmdline());
    println!("inputs   {}", image.inputs());
}
