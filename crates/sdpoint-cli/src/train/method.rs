//! Training methods by name: those of the library, `thrifty` and `sdpoint+`.

use std::str::FromStr;

use sdpoint::ShapeError;
use sdpoint::core::Ratio;
use sdpoint::train::{Draw, Method, TrainPlan};

/// A method, with its default ratios and distribution of instances.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NamedMethod {
    Of(Method),
    Thrifty,
    SdPointPlus,
}

impl NamedMethod {
    /// The plan with this method, and with these ratios instead of the method's.
    pub fn apply(self, plan: TrainPlan, ratios: &[Ratio]) -> Result<TrainPlan, ShapeError> {
        let mut plan = match self {
            Self::Of(method) => plan.with_method(method),
            Self::Thrifty => plan.with_draw(Draw::THRIFTY),
            Self::SdPointPlus => plan.with_sdpoint_plus()?,
        };
        if !ratios.is_empty() {
            plan = plan.with_ratios(ratios);
            if self == Self::SdPointPlus {
                plan = plan.with_early_points()?;
            }
        }
        Ok(plan)
    }
}

impl FromStr for NamedMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "thrifty" => Ok(Self::Thrifty),
            "sdpoint+" => Ok(Self::SdPointPlus),
            _ => text.parse().map(Self::Of).map_err(|_| {
                format!(
                    "'{text}' is not a method: use sdpoint, sdpoint+, thrifty, plain, sandwich or \
                     branched"
                )
            }),
        }
    }
}
