//! `flurry-image`: the image builder as a program of its own. `flurry image` offers the same.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use flurry_image::{Copied, Image, ImageError, OwnDisk, Packages, Placement, Source, Spec, build};

/// Builds guest images: kernel, initial RAM disk, root disk and a manifest.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// From Debian packages, with the cloud kernel and our agent.
    Packages {
        /// The image's directory.
        #[arg(long)]
        output: PathBuf,
        /// The statically linked guest-agent.
        #[arg(long)]
        agent: PathBuf,
        /// The statically linked demo application, to run behind nginx.
        #[arg(long)]
        demo_app: Option<PathBuf>,
        /// A Debian package to install; repeat it for more.
        #[arg(long = "package")]
        packages: Vec<String>,
        /// A file or directory to copy into the guest; repeat it for more.
        #[arg(long = "copy", value_name = "FROM:TO", value_parser = copied)]
        copy: Vec<Copied>,
        /// The Debian release; this machine's own if left out.
        #[arg(long)]
        suite: Option<String>,
        /// The size of the root disk in MiB; the file is sparse.
        #[arg(long, default_value_t = 1024)]
        disk_mib: u32,
        /// Build even if nothing changed, for newer packages.
        #[arg(long)]
        fresh: bool,
    },
    /// From a disk, kernel and initial RAM disk of your own.
    Disk {
        /// The image's directory.
        #[arg(long)]
        output: PathBuf,
        /// The root disk, raw or qcow2.
        #[arg(long)]
        disk: PathBuf,
        /// The kernel.
        #[arg(long)]
        kernel: PathBuf,
        /// The initial RAM disk.
        #[arg(long)]
        initrd: PathBuf,
        /// The kernel command line, with root=.
        #[arg(long)]
        cmdline: String,
        /// Hard links instead of copies; the files must not change afterwards.
        #[arg(long)]
        link: bool,
    },
    /// Checks an image and says what is in it.
    Show {
        /// The image's directory.
        dir: PathBuf,
    },
}

fn copied(text: &str) -> Result<Copied, String> {
    let (from, to) = text.split_once(':').ok_or("must be FROM:TO")?;
    Ok(Copied { from: from.into(), to: to.into() })
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flurry-image: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(why) = cause {
                eprintln!("  because: {why}");
                cause = why.source();
            }
            ExitCode::from(if matches!(error, ImageError::BadSpec(_)) { 2 } else { 1 })
        }
    }
}

fn run(command: Command) -> Result<(), ImageError> {
    let spec = match command {
        Command::Show { dir } => return Image::open(&dir).map(|image| show(&image)),
        Command::Packages { output, agent, demo_app, packages, copy, suite, disk_mib, fresh } => {
            let source = Source::Packages(Packages { packages, copy, suite, agent, demo_app, disk_mib });
            Spec { output, source, fresh }
        }
        Command::Disk { output, disk, kernel, initrd, cmdline, link } => {
            let placement = if link { Placement::Link } else { Placement::Copy };
            let source = Source::Disk(OwnDisk { disk, kernel, initrd, cmdline, placement });
            Spec { output, source, fresh: false }
        }
    };
    let built = build(&spec)?;
    println!("{}", if built.reused { "unchanged, reused" } else { "built" });
    show(&built.image);
    Ok(())
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
