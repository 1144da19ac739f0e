//! The demo guest image that VM tests boot, and imitations of it to be damaged.

use std::path::{Path, PathBuf};

use flurry_image::Image;

/// Environment variable: the folder of the image.
const ENV_IMAGE: &str = "FLURRY_TEST_IMAGE";
/// Environment variable: the folder of the guest with bindings and hooks of the tests.
const ENV_GUEST: &str = "FLURRY_TEST_GUEST_IMAGE";
/// The one file of an image that says what the others are.
pub const MANIFEST: &str = "image.json";

/// The folder of the image.
///
/// # Panics
/// There is no usable image there.
#[must_use]
pub fn folder() -> PathBuf {
    folder_of(ENV_IMAGE, "demo")
}

fn folder_of(variable: &str, name: &str) -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images").join(name);
    let folder = std::env::var_os(variable).map_or_else(built, PathBuf::from);
    let opened = Image::open(&folder);
    assert!(
        opened.is_ok(),
        "these tests boot a guest of ours, and {} holds no usable image: {}; tests/run builds it, \
         or name its folder in {variable}",
        folder.display(),
        opened.err().map(|error| error.to_string()).unwrap_or_default(),
    );
    folder.canonicalize().expect("the path of a folder that was just read")
}

/// The demo guest with the bindings, an interpreter, and hooks that tell what they find.
///
/// # Panics
/// As for [`folder`].
#[must_use]
pub fn open_with_bindings() -> Image {
    Image::open(&folder_of(ENV_GUEST, "guest")).expect("an image that was just opened")
}

/// The image.
///
/// # Panics
/// As for [`folder`].
#[must_use]
pub fn open() -> Image {
    Image::open(&folder()).expect("an image that was just opened")
}

/// Makes `to` an image with files of its own names, which lead to the real ones; so tests can damage one.
///
/// # Panics
/// A file cannot be made.
pub fn imitate(to: &Path) {
    let real = folder();
    std::fs::create_dir(to).expect("a new folder");
    for file in std::fs::read_dir(&real).expect("the image is read").flatten() {
        let ours = to.join(file.file_name());
        if file.file_name() == MANIFEST {
            std::fs::copy(file.path(), ours).expect("the manifest is copied");
        } else {
            std::os::unix::fs::symlink(file.path(), ours).expect("a link is made");
        }
    }
}
