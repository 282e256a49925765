//! Where the flows put their actions, and how much work a step has left.

use alloc::vec::Vec;

use crate::action::{Action, Notice};

/// The open end of a step.
#[derive(Debug)]
pub(crate) struct Out<'a> {
    actions: &'a mut Vec<Action>,
    work: u32,
}

impl<'a> Out<'a> {
    pub(crate) const fn new(actions: &'a mut Vec<Action>, work: u32) -> Self {
        Self { actions, work }
    }

    pub(crate) fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.push(Action::Notice(notice));
    }

    /// Takes one unit of work; `false` if none is left.
    pub(crate) const fn spend(&mut self) -> bool {
        match self.work.checked_sub(1) {
            Some(left) => {
                self.work = left;
                true
            }
            None => false,
        }
    }

    /// Gives back the unit taken last.
    pub(crate) const fn give_back(&mut self) {
        self.work = self.work.saturating_add(1);
    }
}
