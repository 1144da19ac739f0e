//! An engine inside the test's process, with the demo guest as its parent.

use std::sync::Arc;
use std::time::Duration;

use snowflock_engine::control::{
    Created, Engine, EngineSpec, LifeState, Programs, Ticket, TicketAnswer, VmView,
};
use snowflock_engine::hypervisor::qemu::Wish;
use snowflock_engine::hypervisor::{BootImage, Machine};
use snowflock_engine::memory::protocol::CheckpointId;
use snowflock_engine::network::identity::CloneId;

use crate::guest::Guest;
use crate::guest_image;
use crate::site::Site;
use crate::wait::{LONG, until_true};

/// What a test asks of its engine.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Memory of each guest, MiB.
    pub memory_mib: u32,
    /// Processors of each guest.
    pub vcpus: u8,
    /// Hollow shells to keep waiting.
    pub shells: u32,
    /// Clones that may live at once.
    pub max_clones: u32,
    /// Memory that a clone is reckoned with, MiB.
    pub clone_mib: u64,
    /// Clones that processes in the parent may ask for.
    pub guest_clones: u32,
    /// Boot the guest with bindings and hooks of the tests instead of the demo guest.
    pub with_bindings: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            memory_mib: 256,
            vcpus: 1,
            shells: 2,
            max_clones: 16,
            clone_mib: 64,
            guest_clones: 0,
            with_bindings: false,
        }
    }
}

/// The engine. Dropping it ends all its VMs.
#[derive(Debug)]
pub struct TestEngine {
    engine: Engine,
    site: Site,
}

impl TestEngine {
    /// An engine without any VM, and its log where a failed test shows it.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start(word: &str, shape: Shape) -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().with_target(false).try_init();
        let site = Site::new(word);
        let spec = spec(&site, shape);
        let started = tokio::task::spawn_blocking(move || Engine::start(spec)).await;
        let engine = started.expect("no panic at the start").expect("the engine starts");
        Self { engine, site }
    }

    /// An engine whose parent answers requests.
    ///
    /// # Panics
    /// It does not.
    pub async fn boot(word: &str, shape: Shape) -> Self {
        let engine = Self::start(word, shape).await;
        engine.boot_parent().await;
        engine
    }

    /// Boots the parent and waits until it answers requests.
    ///
    /// # Panics
    /// It does not.
    pub async fn boot_parent(&self) {
        self.engine.boot().await.expect("the parent boots");
        self.parent().answers().await;
        self.engine.ready(CloneId::PARENT, Duration::ZERO);
    }

    /// Its place on this host.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The parent.
    #[must_use]
    pub fn parent(&self) -> Guest {
        self.guest(CloneId::PARENT)
    }

    /// A guest by its ID.
    #[must_use]
    pub fn guest(&self, id: CloneId) -> Guest {
        Guest::new(self.engine.dialer(), self.site.block().address(id))
    }

    /// What the engine shows of a clone.
    ///
    /// # Panics
    /// It knows none of this ID.
    #[must_use]
    pub fn vm(&self, id: CloneId) -> VmView {
        let view = Arc::clone(&self.engine.view().borrow());
        let vm = if id == CloneId::PARENT { view.parent.as_ref() } else { view.clone_with(id) };
        vm.unwrap_or_else(|| panic!("the engine shows no {id}")).clone()
    }

    /// A ticket for exactly so many clones.
    ///
    /// # Panics
    /// It is refused, or for fewer.
    pub async fn ticket(&self, clones: u32) -> Ticket {
        match self.engine.sf_request_ticket(clones).await.expect("the engine answers") {
            TicketAnswer::Granted(ticket) if ticket.clones.len() == clones as usize => ticket,
            other => panic!("asked for {clones} clones, got {other:?}"),
        }
    }

    /// So many clones of a checkpoint, all of which answer requests.
    ///
    /// # Panics
    /// One does not.
    pub async fn clones(&self, clones: u32, of: CheckpointId) -> Vec<CloneId> {
        let ticket = self.ticket(clones).await;
        let created = self.engine.sf_create_clones(ticket.id, of).await.expect("a ticket and a checkpoint");
        self.all_answer(&ticket, created).await
    }

    /// Sees all clones of a ticket through to their first answer.
    ///
    /// # Panics
    /// One has failed, or does not answer.
    pub async fn all_answer(&self, ticket: &Ticket, created: Created) -> Vec<CloneId> {
        assert_eq!(created.failed, [], "no clone fails");
        let mut joined = created.joined;
        joined.sort_unstable();
        assert_eq!(joined, ticket.clones, "every promised clone has joined");
        for id in &joined {
            self.guest(*id).answers().await;
            self.engine.ready(*id, self.vm(*id).began.elapsed());
        }
        joined
    }

    /// One clone of a checkpoint, which answers requests.
    ///
    /// # Panics
    /// It does not.
    pub async fn clone_of(&self, checkpoint: CheckpointId) -> (CloneId, Guest) {
        let id = self.clones(1, checkpoint).await[0];
        (id, self.guest(id))
    }

    /// Waits until a clone's life is over, in failure or not.
    ///
    /// # Panics
    /// It goes on.
    pub async fn ends(&self, id: CloneId) -> LifeState {
        until_true(&format!("{id} has ended"), LONG, async || !self.vm(id).state.is_alive()).await;
        self.vm(id).state
    }

    /// What a guest has printed on its console.
    #[must_use]
    pub fn console(&self, id: CloneId) -> String {
        let file = self.site.folder().join(id.to_string()).join("console");
        String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
    }

    /// Ends all VMs and checks that nothing is left.
    ///
    /// # Panics
    /// Something is.
    pub async fn shut_down(self) {
        self.engine.shut_down().await.expect("all is removed");
        self.site.assert_nothing_left();
    }
}

impl std::ops::Deref for TestEngine {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Drop for TestEngine {
    /// A failed test ends here: its VMs must not outlive it.
    fn drop(&mut self) {
        let engine = self.engine.clone();
        let end = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let _ = runtime.map(|runtime| runtime.block_on(engine.shut_down()));
        };
        let _ = std::thread::spawn(end).join();
    }
}

fn spec(site: &Site, shape: Shape) -> EngineSpec {
    let image = if shape.with_bindings { guest_image::open_with_bindings() } else { guest_image::open() };
    EngineSpec {
        name: site.name().to_owned(),
        machine: Machine { memory_mib: shape.memory_mib, vcpus: shape.vcpus },
        image: BootImage {
            kernel: image.kernel(),
            initrd: image.initrd(),
            cmdline: image.cmdline().to_owned(),
            disk: image.disk(),
            disk_format: image.disk_format().name().to_owned(),
            disk_bytes: image.disk_bytes(),
        },
        block: site.block(),
        accelerator: Wish::Auto,
        shells: shape.shells,
        max_clones: shape.max_clones,
        clone_mib: shape.clone_mib,
        state_folder: site.folder().to_owned(),
        boot_limit: LONG,
        identity_limit: LONG,
        hook_limit: LONG,
        guest_clones: shape.guest_clones,
        programs: Programs::find().expect("the engine's programs; build them: cargo build --workspace"),
        between: None,
    }
}
