//! The body of a module: its members and its `forward`.

use std::collections::HashMap;

use sdpoint_core::{Conv, LayerId, Network, Op, Point, PointId, Window};

use super::structure::{Child, Item, refuse};
use crate::error::ExportError;

/// A module's members, each the code after `self.NAME = `, and the statements of
/// its `forward`, whose argument is `x`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Body {
    pub members: Vec<(String, Member)>,
    pub forward: Vec<String>,
}

/// A member of a module.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Member {
    Module(Code),
    Sequence(Vec<Code>),
}

/// Code with numbers in it that may differ between otherwise equal modules.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Code(pub Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    /// A number, and the name of a parameter for it.
    Number(&'static str, usize),
    /// A call of the class of a kind of blocks, with the numbers of one.
    Block {
        kind: usize,
        block: usize,
    },
}

impl Code {
    pub fn text(text: impl Into<String>) -> Self {
        Self(vec![Piece::Text(text.into())])
    }

    fn written(&self, number: &mut dyn FnMut(usize) -> String) -> String {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Number(_, value) => number(*value),
            // Calls are written before the code is.
            Piece::Block { .. } => String::new(),
        });
        pieces.collect()
    }

    fn push(mut self, text: impl Into<String>) -> Self {
        self.0.push(Piece::Text(text.into()));
        self
    }

    fn number(mut self, role: &'static str, value: usize) -> Self {
        self.0.push(Piece::Number(role, value));
        self
    }
}

impl Body {
    fn codes(&self) -> impl Iterator<Item = &Code> {
        self.members.iter().flat_map(|(_, member)| match member {
            Member::Module(code) => std::slice::from_ref(code),
            Member::Sequence(codes) => codes,
        })
    }

    /// The numbers in the code, each with the name of a parameter for it.
    pub fn numbers(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let pieces = self.codes().flat_map(|code| &code.0);
        pieces.filter_map(|piece| match piece {
            Piece::Number(role, value) => Some((*role, *value)),
            _ => None,
        })
    }

    /// Whether another body differs in numbers only.
    pub fn differs_in_numbers_alone(&self, other: &Self) -> bool {
        let zeroed = |body: &Self| {
            let text = body.members_text(&mut |_| "0".into());
            (text, body.forward.clone())
        };
        zeroed(self) == zeroed(other)
    }

    /// The lines of `__init__` that create the members.
    pub fn members_text(&self, number: &mut dyn FnMut(usize) -> String) -> String {
        let mut text = String::new();
        for (name, member) in &self.members {
            match member {
                Member::Module(code) => {
                    text += &format!("        self.{name} = {}\n", code.written(number));
                }
                Member::Sequence(codes) => {
                    text += &format!("        self.{name} = nn.Sequential(\n");
                    for code in codes {
                        text += &format!("            {},\n", code.written(number));
                    }
                    text += "        )\n";
                }
            }
        }
        text
    }

    /// The method `forward`.
    pub fn forward_text(&self) -> String {
        let lines = self.forward.iter().map(|line| format!("        {line}\n"));
        format!("    def forward(self, x):\n{}", lines.collect::<String>())
    }
}

/// Writes the body of a module of these items.
///
/// `input` is the layer that its argument is the output of, and `sequence`
/// generates the code of a sequence's member.
pub(super) fn body(
    network: &Network,
    items: &[Item],
    input: LayerId,
    sequence: &mut dyn FnMut(&Child) -> Result<Code, ExportError>,
) -> Result<Body, ExportError> {
    let mut writer = Writer::new(network, items, input);
    for item in items {
        match item {
            Item::Layer(id) => writer.layer(*id)?,
            Item::Sequence(children) => {
                let codes = children.children.iter().map(&mut *sequence);
                let member = Member::Sequence(codes.collect::<Result<_, _>>()?);
                let name = children.name.clone();
                writer.body.members.push((name.clone(), member));
                // One line per sequence, so that the stages are visible.
                writer.name_pending();
                let argument = writer.operand(children.source);
                writer.value(children.output(), format!("self.{name}({argument})"));
            }
        }
    }
    Ok(writer.finish())
}

/// A layer that is a member of a sequence.
pub(super) fn member(network: &Network, id: LayerId) -> Result<Code, ExportError> {
    let layer = network.layer(id);
    if network.points().iter().any(|point| point.layer() == id) {
        return Err(refuse(
            network,
            id.0,
            "it is a point within a sequence of layers",
        ));
    }
    match &layer.op {
        Op::Conv(conv) => Ok(convolution(conv)),
        Op::BatchNorm { channels, eps } => Ok(norm(*channels, *eps)),
        Op::Relu => Ok(Code::text("nn.ReLU()")),
        Op::Relu6 => Ok(Code::text("nn.ReLU6()")),
        Op::MaxPool(window) => Ok(Code::text(format!("nn.MaxPool2d({})", numbers(window)))),
        Op::AvgPool(window) => Ok(Code::text(format!("nn.AvgPool2d({})", numbers(window)))),
        _ => Err(refuse(network, id.0, "it is no layer of a plain sequence")),
    }
}

/// Builds statements from expressions: a tensor that is used only once, by the
/// next layer, gets no variable.
struct Writer<'a> {
    network: &'a Network,
    body: Body,
    /// The remaining uses of each tensor.
    left: HashMap<LayerId, usize>,
    /// The variables that hold tensors.
    variables: HashMap<LayerId, String>,
    /// The newest tensor, while it is an expression.
    pending: Option<(LayerId, String)>,
    /// Variables whose tensors are no longer used.
    free: Vec<String>,
    /// The number of block points in the module.
    points: usize,
}

/// The longest expression that does not get a variable.
const LONGEST: usize = 60;

impl<'a> Writer<'a> {
    fn new(network: &'a Network, items: &[Item], input: LayerId) -> Self {
        let mut left = HashMap::new();
        let mut points = 0;
        for item in items {
            match item {
                Item::Layer(id) => {
                    for &used in &network.layer(*id).inputs {
                        *left.entry(used).or_insert(0) += 1;
                    }
                    let here = |point: &&Point| point.layer() == *id && point.id() != PointId::Stem;
                    points += network.points().iter().filter(here).count();
                }
                Item::Sequence(children) => *left.entry(children.source).or_insert(0) += 1,
            }
        }
        Self {
            network,
            body: Body::default(),
            left,
            variables: HashMap::from([(input, "x".to_owned())]),
            pending: None,
            free: Vec::new(),
            points,
        }
    }

    /// The code for one use of a tensor.
    fn operand(&mut self, id: LayerId) -> String {
        let left = self.left.entry(id).or_insert(1);
        *left -= 1;
        let last = *left == 0;
        match self.pending.take() {
            Some((pending, expression)) if pending == id && last && expression.len() <= LONGEST => {
                return expression;
            }
            pending => self.pending = pending,
        }
        self.name_pending();
        let variable = self.variables.get(&id).cloned().unwrap_or_default();
        if last {
            self.variables.remove(&id);
            self.free.push(variable.clone());
        }
        variable
    }

    /// Assigns the newest tensor to a variable.
    fn name_pending(&mut self) {
        let Some((id, expression)) = self.pending.take() else {
            return;
        };
        let taken: Vec<&String> = self.variables.values().collect();
        let fresh = ["x", "y", "z"].map(str::to_owned).into_iter();
        let fresh = fresh.chain((3..).map(|number| format!("x{number}")));
        let variable = self
            .free
            .drain(..)
            .next()
            .or_else(|| fresh.into_iter().find(|name| !taken.contains(&name)))
            .unwrap_or_default();
        self.body.forward.push(format!("{variable} = {expression}"));
        self.variables.insert(id, variable);
    }

    /// Sets the expression for a tensor.
    fn value(&mut self, id: LayerId, expression: String) {
        self.pending = Some((id, expression));
    }

    fn layer(&mut self, id: LayerId) -> Result<(), ExportError> {
        let layer = self.network.layer(id);
        let point = self
            .network
            .points()
            .iter()
            .find(|point| point.layer() == id);
        let point = point.map(|point| point.id());
        let name = layer.name.rsplit('.').next().unwrap_or_default();
        // All but the last operand need names before an expression is used.
        let operands: Vec<String> = match layer.inputs[..] {
            [] => return Ok(()),
            [input] => vec![self.operand(input)],
            _ => {
                self.name_pending();
                layer
                    .inputs
                    .iter()
                    .map(|&input| self.operand(input))
                    .collect()
            }
        };
        let x = &operands[0];
        let (member, mut expression) = match &layer.op {
            Op::Input { .. } => return Ok(()),
            Op::Conv(conv) => (Some(convolution(conv)), format!("self.{name}({x})")),
            Op::BatchNorm { channels, eps } => {
                (Some(norm(*channels, *eps)), format!("self.{name}({x})"))
            }
            Op::Relu => (None, format!("F.relu({x})")),
            Op::Relu6 => (None, format!("F.relu6({x})")),
            Op::MaxPool(window) if point == Some(PointId::Stem) => {
                let pool = format!("StemPool({})", numbers(window));
                (Some(Code::text(pool)), format!("self.{name}({x})"))
            }
            Op::MaxPool(window) => (None, format!("F.max_pool2d({x}, {})", numbers(window))),
            Op::AvgPool(window) => (None, format!("F.avg_pool2d({x}, {})", numbers(window))),
            Op::GlobalAvgPool => (None, format!("F.adaptive_avg_pool2d({x}, 1)")),
            Op::Linear {
                in_features,
                out_features,
                bias,
            } => {
                let code = Code::text("nn.Linear(")
                    .number("channels", *in_features)
                    .push(", ");
                let code = code.number("classes", *out_features);
                let code = code.push(if *bias { ")" } else { ", bias=False)" });
                (Some(code), format!("self.{name}(torch.flatten({x}, 1))"))
            }
            Op::Add => (None, operands.join(" + ")),
            Op::Concat => (None, format!("torch.cat([{}], 1)", operands.join(", "))),
        };
        if let Some(code) = member {
            let member = Member::Module(code);
            self.body.members.push((name.to_owned(), member));
        }
        if let Some(PointId::Block(number)) = point {
            let name = match self.points {
                1 => "sdpoint".to_owned(),
                _ => format!("sdpoint{number}"),
            };
            expression = format!("self.{name}({expression})");
            let code = Code::text("SDPoint(").number("point", number).push(")");
            self.body.members.push((name, Member::Module(code)));
        }
        self.value(id, expression);
        Ok(())
    }

    fn finish(mut self) -> Body {
        if let Some((_, expression)) = self.pending.take() {
            self.body.forward.push(format!("return {expression}"));
        }
        self.body
    }
}

fn convolution(conv: &Conv) -> Code {
    let mut code = Code::text("nn.Conv2d(")
        .number("channels", conv.in_channels)
        .push(", ");
    code = code.number("width", conv.out_channels);
    code = code.push(format!(", {}, stride=", pair(conv.kernel)));
    code = match conv.stride {
        [height, width] if height == width => code.number("stride", height),
        stride => code.push(pair(stride)),
    };
    code = code.push(format!(", padding={}", pair(conv.padding)));
    if conv.groups != 1 {
        code = code.push(", groups=").number("groups", conv.groups);
    }
    code.push(if conv.bias { ")" } else { ", bias=False)" })
}

fn norm(channels: usize, eps: f32) -> Code {
    let code = Code::text("Norm(").number("width", channels);
    if eps == 1e-5 {
        code.push(")")
    } else {
        code.push(format!(", {eps})"))
    }
}

fn numbers(window: &Window) -> String {
    [window.kernel, window.stride, window.padding]
        .map(pair)
        .join(", ")
}

fn pair([height, width]: [usize; 2]) -> String {
    if height == width {
        height.to_string()
    } else {
        format!("({height}, {width})")
    }
}
