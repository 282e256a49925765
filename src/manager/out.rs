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

    /// The unit taken last stands for more: so many all in all.
    pub(crate) const fn spend_more(&mut self, units: u32) {
        self.work = self.work.saturating_sub(units.saturating_sub(1));
    }
}
