//! A graph of ONNX operators under construction.

use super::proto::{Attribute, Message, batch_of, floats, integers, node};

/// Nodes and constants in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Graph {
    message: Message,
}

impl Graph {
    /// Adds an operator and returns the name of its output.
    pub fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[Attribute<'_>],
    ) -> String {
        self.message
            .message(1, &node(operator, inputs, output, attributes));
        output.to_owned()
    }

    /// Adds a constant tensor and returns its name.
    pub fn floats(&mut self, name: String, shape: &[usize], values: &[f32]) -> String {
        self.message.message(5, &floats(&name, shape, values));
        name
    }

    /// Adds a constant vector of integers and returns its name.
    pub fn integers(&mut self, name: String, values: &[usize]) -> String {
        let values: Vec<i64> = values.iter().map(|&value| value as i64).collect();
        self.message.message(5, &integers(&name, &values));
        name
    }

    /// Completes the graph with its name, input and output; shapes are those for
    /// one image.
    pub fn finish(
        mut self,
        name: &str,
        input: (&str, &[usize]),
        output: (&str, &[usize]),
    ) -> Message {
        self.message.text(2, name);
        self.message.message(11, &batch_of(input.0, input.1));
        self.message.message(12, &batch_of(output.0, output.1));
        self.message
    }
}
