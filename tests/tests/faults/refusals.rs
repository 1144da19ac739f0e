//! `flurry` that cannot run says why, ends with its code, and leaves nothing. No VM is booted here.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use flurry_tests::tier::TierSite;
use flurry_tests::{guest_image, programs};

/// An image that is not as it should be.
fn damage(site: &mut TierSite, damage: impl Fn(&Path)) {
    site.config.image = site.files().join("image");
    guest_image::imitate(&site.config.image);
    damage(&site.config.image);
}

#[tokio::test]
async fn an_image_that_is_not_there_is_a_complaint_about_the_configuration() {
    let mut site = TierSite::new("noimage");
    site.config.image = site.files().join("nowhere");
    let ended = site.refuses().await;
    ended.assert_code(2);
    assert!(ended.log.contains("vm.image") && ended.log.contains("nowhere"), "{}", ended.log);
}

#[tokio::test]
async fn a_folder_without_an_image_is_named_with_the_command_that_makes_one() {
    let mut site = TierSite::new("empty");
    site.config.image = site.files().to_owned();
    let folder = site.config.image.display().to_string();
    site.refuses().await.assert_complaint(&["vm.image", &folder, "flurry image build"]);
}

#[tokio::test]
async fn a_broken_manifest_is_refused_before_anything_starts() {
    let mut site = TierSite::new("manifest");
    damage(&mut site, |folder| fs::write(folder.join(guest_image::MANIFEST), "{\"version\":").unwrap());
    site.refuses().await.assert_complaint(&["vm.image", "image.json", "not JSON"]);
}

#[tokio::test]
async fn a_truncated_disk_is_refused_with_both_sizes() {
    let mut site = TierSite::new("disk");
    let bytes = guest_image::open().disk_bytes();
    let cut = bytes / 2;
    damage(&mut site, |folder| {
        let disk = folder.join(guest_image::open().disk().file_name().unwrap());
        fs::remove_file(&disk).unwrap();
        // Its first mebibyte and the size that half a download would have.
        let mut head = vec![0; 1 << 20];
        fs::File::open(guest_image::open().disk()).unwrap().read_exact(&mut head).unwrap();
        fs::write(&disk, head).unwrap();
        fs::OpenOptions::new().write(true).open(disk).unwrap().set_len(cut).unwrap();
    });
    let (whole, half) = (bytes.to_string(), cut.to_string());
    site.refuses().await.assert_complaint(&["vm.image", "disk.bytes", &whole, &half]);
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_key_and_address() {
    let mut site = TierSite::new("port");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = site.config.listen;
    let address = taken.local_addr().unwrap();
    site.config.listen = address;
    let wanted = ["listen[0]", &address.to_string(), "another program listens there"];
    site.refuses().await.assert_complaint(&wanted);

    (site.config.listen, site.config.admin) = (free, address);
    let wanted = ["admin", &address.to_string(), "another program listens there"];
    site.refuses().await.assert_complaint(&wanted);
}

#[tokio::test]
async fn kvm_that_does_not_work_is_refused_with_what_to_write_instead() {
    let mut site = TierSite::new("kvm");
    site.config.accelerator = "kvm";
    if Path::new("/dev/kvm").exists() {
        // A program in the place of QEMU that runs no guest does what a broken KVM does.
        site.config.qemu = Some("/bin/false".into());
    }
    site.refuses().await.assert_complaint(&["KVM was asked for", "accelerator: auto"]);
}

#[tokio::test]
async fn a_state_folder_with_files_of_somebody_else_is_left_alone() {
    let mut site = TierSite::new("foreign");
    let folder = site.files().join("precious");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("thesis"), "x").unwrap();
    site.config.state_dir.clone_from(&folder);
    let name = folder.display().to_string();
    site.refuses().await.assert_complaint(&[&name, "not a state folder of flurry", "state_dir"]);
    assert_eq!(fs::read_to_string(folder.join("thesis")).unwrap(), "x");
}

#[tokio::test]
async fn a_full_disk_is_named_with_the_file_that_has_no_room() {
    let mut site = TierSite::new("full");
    let mount = site.files().join("tiny");
    fs::create_dir(&mount).unwrap();
    site.config.state_dir = mount.join("state");
    site.config.accelerator = "tcg";
    // A file system of 64 KiB, which only this process sees.
    let tiny = "mount -t tmpfs -o size=64k tiny \"$0\" && exec \"$@\"";
    let ended =
        site.up_through(&["unshare", "--mount", "sh", "-c", tiny, mount.to_str().unwrap()]).ends().await;
    let folder = site.config.state_dir.display().to_string();
    ended.assert_complaint(&["cannot start the engine", &folder, "No space left on device"]);
}

#[tokio::test]
async fn a_host_that_gives_no_userfaultfd_is_refused_with_the_remedy() {
    let mut site = TierSite::new("nouffd");
    site.config.accelerator = "tcg";
    let ended = site.up_through(&["setpriv", "--bounding-set=-sys_ptrace"]).ends().await;
    ended.assert_complaint(&["guests cannot be forked on this host", "userfaultfd", "CAP_SYS_PTRACE"]);
}

#[tokio::test]
async fn a_qemu_that_is_not_there_is_named() {
    let mut site = TierSite::new("noqemu");
    site.config.qemu = Some("/nowhere/qemu-system-x86_64".into());
    site.config.accelerator = "tcg";
    site.refuses().await.assert_complaint(&["/nowhere/qemu-system-x86_64", "No such file"]);
}

#[test]
fn flurry_check_tells_all_complaints_at_once_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = folder.path().join("flurry.yaml");
    let text = "listen: [127.0.0.1:99999]\nvm: {image: nowhere, vcpus: 99}\nscalling: {}\n";
    fs::write(&yaml, text).unwrap();
    let checked = Command::new(programs::flurry()).arg("check").arg(&yaml).output().unwrap();
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(2), "{said}");
    for key in ["listen[0]", "vm.image", "vm.vcpus", "scalling", "scaling"] {
        assert!(said.contains(key), "nothing about {key}: {said}");
    }
    fs::write(&yaml, "listen: [127.0.0.1:0]\nbackends: [127.0.0.1:9]\n").unwrap();
    assert!(Command::new(programs::flurry()).arg("check").arg(&yaml).status().unwrap().success());
}
