//! Instructions that modify values, memoise them, or look up names.

use super::unpickler::{EMPTY, MAX_VALUES, Step, Stop, Unpickler, have, utf8};
use super::{Global, Id, Value};

impl<'a> Unpickler<'_, 'a> {
    /// Appends to the list on top of the stack.
    pub(super) fn extend(&mut self, items: Vec<Id>) -> Step<()> {
        let mut list = self.top()?;
        if let Some(object) = self.object()? {
            list = match object.list {
                Some(list) => list,
                None => {
                    let list = self.make(Value::List(Vec::new()))?;
                    self.object()?.ok_or(EMPTY)?.list = Some(list);
                    list
                }
            };
        }
        if let Value::List(list) = &mut self.values[list.index()] {
            list.extend(items);
        }
        Ok(())
    }

    /// Sets items of the dictionary on top of the stack.
    pub(super) fn set(&mut self, items: &[Id]) -> Step<()> {
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(Stop::Malformed("a key without a value"));
        };
        let mut dict = self.top()?;
        if let Some(object) = self.object()? {
            dict = match object.items {
                Some(dict) => dict,
                None => {
                    let dict = self.make(Value::Dict(Vec::new()))?;
                    self.object()?.ok_or(EMPTY)?.items = Some(dict);
                    dict
                }
            };
        }
        if let Value::Dict(dict) = &mut self.values[dict.index()] {
            dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
        }
        Ok(())
    }

    /// BUILD: sets an object's attributes. No weight depends on the attributes
    /// of other values.
    pub(super) fn build(&mut self) -> Step<()> {
        let state = self.pop()?;
        if let Some(object) = self.object()? {
            object.state = Some(state);
        }
        Ok(())
    }

    pub(super) fn remember(&mut self, key: u32) -> Step<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        if self.memo.len() > MAX_VALUES {
            return Err(Stop::TooMuch);
        }
        Ok(())
    }

    pub(super) fn recall(&mut self, key: u32) -> Step<()> {
        let id = *self.memo.get(&key).ok_or(Stop::Malformed(
            "a reference to a value that was not remembered",
        ))?;
        self.stack.push(id);
        Ok(())
    }

    /// A name on two lines.
    pub(super) fn global(&mut self) -> Step<Id> {
        let module = utf8(have(self.input.line())?)?;
        let name = utf8(have(self.input.line())?)?;
        self.named(module, name)
    }

    pub(super) fn named(&mut self, module: &'a str, name: &'a str) -> Step<Id> {
        self.make(Value::Global(Box::new(Global { module, name })))
    }

    pub(super) fn instance(&mut self, class: Id, arguments: Vec<Id>) -> Step<()> {
        let arguments = self.make(Value::Tuple(arguments))?;
        let made = self.call(class, arguments)?;
        self.stack.push(made);
        Ok(())
    }
}
