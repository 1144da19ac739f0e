//! Every order in which the steps of freezer, pagers, the VM and a crash can
//! interleave over one page, tried one by one.
//!
//!   VM + freezer: fault -> look -> read -> write image -> set bit -> lift protection -> write half, write half
//!   each pager:   look -> read half, read half -> look again -> write image -> set bit -> hand out
//!   crash:        a pager vanishes between two steps; its successor recounts and starts again
//!
//! This is a model: it checks the argument of `memory::frozen`, that nobody is
//! ever handed a page that differs from the checkpoint, and shows that each
//! rule is needed by breaking it. The code itself is tested by `tests/memory`.

use std::collections::HashSet;

/// What a page held at the checkpoint, in both halves; the VM writes `NEW`.
const OLD: u8 = 1;
const NEW: u8 = 2;

/// Rules that can be broken.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    Nothing,
    /// The pager does not look a second time.
    SecondLook,
    /// The freezer lifts protection before it sets the bit.
    BitBeforeLift,
    /// The pager sets the bit before the content is written.
    ContentBeforeBit,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    ram: [u8; 2],
    image: Option<[u8; 2]>,
    bit: bool,
    freezer: Freezer,
    pagers: [Pager; 2],
    crashes_left: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Freezer {
    Look,
    Read,
    Fill([u8; 2]),
    Mark,
    Lift,
    WriteFirst,
    WriteSecond,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Pager {
    Recount,
    Look,
    ReadFirst,
    ReadSecond(u8),
    LookAgain([u8; 2]),
    Fill([u8; 2]),
    Mark,
    HandOut,
    Done,
}

impl World {
    fn new() -> Self {
        Self {
            ram: [OLD; 2],
            image: None,
            bit: false,
            freezer: Freezer::Look,
            pagers: [Pager::Look; 2],
            crashes_left: 1,
        }
    }

    /// The freezer, and then the VM, takes its next step.
    fn freezer_steps(&mut self, broken: Broken) {
        let swapped = broken == Broken::BitBeforeLift;
        self.freezer = match self.freezer {
            Freezer::Look if self.bit => Freezer::Lift,
            Freezer::Look => Freezer::Read,
            Freezer::Read => Freezer::Fill(self.ram),
            Freezer::Fill(content) => {
                self.image = Some(content);
                if swapped { Freezer::Lift } else { Freezer::Mark }
            }
            Freezer::Mark => {
                self.bit = true;
                if swapped { Freezer::Done } else { Freezer::Lift }
            }
            Freezer::Lift => Freezer::WriteFirst,
            Freezer::WriteFirst => {
                self.ram[0] = NEW;
                Freezer::WriteSecond
            }
            Freezer::WriteSecond => {
                self.ram[1] = NEW;
                if swapped && !self.bit { Freezer::Mark } else { Freezer::Done }
            }
            Freezer::Done => Freezer::Done,
        };
    }

    /// A pager takes its next step.
    fn pager_steps(&mut self, number: usize, broken: Broken) -> Result<(), String> {
        let early = broken == Broken::ContentBeforeBit;
        self.pagers[number] = match self.pagers[number] {
            Pager::Recount => {
                self.bit |= self.image.is_some();
                Pager::Look
            }
            Pager::Look if self.bit => Pager::HandOut,
            Pager::Look => Pager::ReadFirst,
            Pager::ReadFirst => Pager::ReadSecond(self.ram[0]),
            Pager::ReadSecond(first) => Pager::LookAgain([first, self.ram[1]]),
            Pager::LookAgain(_) if self.bit && broken != Broken::SecondLook => Pager::HandOut,
            Pager::LookAgain(content) => {
                self.bit |= early;
                Pager::Fill(content)
            }
            Pager::Fill(content) => {
                self.image = Some(content);
                Pager::Mark
            }
            Pager::Mark => {
                self.bit = true;
                Pager::HandOut
            }
            Pager::HandOut => match self.image {
                Some(content) if content == [OLD; 2] => Pager::Done,
                found => return Err(format!("a clone was handed {found:?}")),
            },
            Pager::Done => Pager::Done,
        };
        Ok(())
    }

    /// The first pager is killed and followed by a successor.
    fn crash(&mut self) {
        self.crashes_left -= 1;
        self.pagers[0] = Pager::Recount;
    }

    fn next(&self, broken: Broken) -> Result<Vec<Self>, String> {
        let mut all = Vec::new();
        let mut freezer = self.clone();
        freezer.freezer_steps(broken);
        all.push(freezer);
        for number in 0..2 {
            let mut pager = self.clone();
            pager.pager_steps(number, broken)?;
            all.push(pager);
        }
        if self.crashes_left > 0 {
            let mut crashed = self.clone();
            crashed.crash();
            all.push(crashed);
        }
        Ok(all)
    }
}

/// Goes through all that can happen; returns how many states there are.
fn explore(broken: Broken) -> Result<usize, String> {
    let mut seen = HashSet::from([World::new()]);
    let mut open = vec![World::new()];
    while let Some(world) = open.pop() {
        if let (Some(content), true) = (world.image, world.bit)
            && content != [OLD; 2]
        {
            return Err(format!("the image holds {content:?}"));
        }
        for next in world.next(broken)? {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    let all_end = |world: &World| world.pagers == [Pager::Done; 2] && world.freezer == Freezer::Done;
    assert!(seen.iter().any(all_end), "everybody can end");
    Ok(seen.len())
}

#[test]
fn no_order_of_steps_hands_a_clone_anything_but_the_checkpoint() {
    let states = explore(Broken::Nothing).unwrap();
    assert!(states > 500, "only {states} states were tried");
}

#[test]
fn without_the_second_look_a_torn_page_gets_out() {
    assert!(explore(Broken::SecondLook).is_err());
}

#[test]
fn without_the_bit_before_the_write_a_torn_page_gets_out() {
    assert!(explore(Broken::BitBeforeLift).is_err());
}

#[test]
fn with_the_bit_before_the_content_a_hole_is_taken_for_a_page() {
    assert!(explore(Broken::ContentBeforeBit).is_err());
}
