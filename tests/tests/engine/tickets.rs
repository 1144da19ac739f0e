//! SnowFlock's calls: what is granted, what is refused, and how clones end.

use flurry_tests::engine::{Shape, TestEngine};
use snowflock_engine::control::{EngineError, LifeState, Refusal, TicketAnswer, TicketId};
use snowflock_engine::memory::protocol::CheckpointId;

const MOST: u32 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_are_granted_as_far_as_there_is_room_used_once_and_ended_by_kill_exit_and_join() {
    let shape = Shape { max_clones: MOST, shells: 1, ..Shape::default() };
    let engine = TestEngine::start("tickets", shape).await;
    let refusal = async |wanted| match engine.sf_request_ticket(wanted).await.unwrap() {
        TicketAnswer::Refused(why) => why,
        TicketAnswer::Granted(ticket) => panic!("asked for {wanted}, granted {ticket:?}"),
    };
    assert_eq!(refusal(1).await, Refusal::NothingToFork);
    engine.boot_parent().await;
    assert_eq!(refusal(0).await, Refusal::NoneAsked);

    // Fewer than asked for; then none, and the refusal is a value that says why.
    let TicketAnswer::Granted(ticket) = engine.sf_request_ticket(MOST + 7).await.unwrap() else {
        panic!("there is room for {MOST}");
    };
    assert_eq!(ticket.clones.iter().map(|id| id.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(refusal(1).await, Refusal::Full { limit: MOST });

    // A ticket that is not used is given back by sf_kill.
    engine.sf_kill(ticket.id).await.unwrap();
    let ticket = engine.ticket(MOST).await;
    let created = engine.sf_clone(ticket.id).await.unwrap();
    let clones = engine.all_answer(&ticket, created).await;

    // A used ticket makes no more clones; what does not exist is named.
    let checkpoint = engine.view().borrow().checkpoints[0].id;
    let again = engine.sf_create_clones(ticket.id, checkpoint).await;
    assert!(matches!(again, Err(EngineError::NoTicket(id)) if id == ticket.id), "{again:?}");
    let nowhere = CheckpointId(999);
    let lost = engine.sf_create_clones(ticket.id, nowhere).await;
    assert!(matches!(lost, Err(EngineError::NoCheckpoint(id)) if id == nowhere), "{lost:?}");
    let unknown = engine.sf_kill(TicketId(999)).await;
    assert!(matches!(unknown, Err(EngineError::NoTicket(_))), "{unknown:?}");

    // One exits: its process and its place are free, another may be made.
    engine.sf_exit(clones[1]).await.unwrap();
    assert_eq!(engine.vm(clones[1]).state, LifeState::Gone);
    assert_eq!(engine.site().vm_process(clones[1]), None);
    let other = engine.ticket(1).await;
    assert_eq!(refusal(1).await, Refusal::Full { limit: MOST });

    // sf_join waits for the rest, which sf_kill ends.
    let (joined, killed) = tokio::join!(engine.sf_join(ticket.id), async {
        assert_eq!(engine.vm(clones[0]).state, LifeState::Ready);
        engine.sf_kill(ticket.id).await
    });
    joined.unwrap();
    killed.unwrap();
    for id in &clones {
        assert_eq!((engine.vm(*id).state, engine.site().vm_process(*id)), (LifeState::Gone, None));
    }
    let created = engine.sf_create_clones(other.id, checkpoint).await.unwrap();
    engine.all_answer(&other, created).await;

    // A promised clone may exit, too; its ticket then says so instead of waiting for it.
    let unused = engine.ticket(1).await;
    engine.sf_exit(unused.clones[0]).await.unwrap();
    let created = engine.sf_create_clones(unused.id, checkpoint).await.unwrap();
    assert_eq!((created.joined.len(), created.failed.len()), (0, 1), "{created:?}");
    engine.shut_down().await;
}
