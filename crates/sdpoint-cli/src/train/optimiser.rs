//! Options of the optimiser.

use sdpoint::train::{Optimizer, Recipe};

/// How weights are updated.
#[derive(clap::Args)]
#[group(multiple = true)]
#[command(next_help_heading = "Optimiser")]
pub struct OptimiserArgs {
    /// Optimiser: sgd, with momentum, or adamw, whose rate and weight decay are 0.001 and 0.05 unless
    /// set otherwise [default: that of the recipe]
    #[arg(long, visible_alias = "optimiser", value_name = "sgd|adamw", value_parser = optimizer)]
    optimizer: Option<Optimizer>,
    /// Scale gradients down to this norm over all weights where it is larger [default: never]
    #[arg(long, value_name = "X")]
    clip_norm: Option<f64>,
    /// Average the weights exponentially with this decay per step, such as 0.998, and use the average
    /// in place of the last weights [default: that of the recipe]
    #[arg(long, value_name = "DECAY")]
    ema: Option<f64>,
}

impl OptimiserArgs {
    /// Changes the settings of a recipe to those that were given.
    pub fn apply(&self, recipe: &mut Recipe) {
        if let Some(optimizer) = self.optimizer {
            *recipe = recipe.clone().with_optimizer(optimizer);
        }
        recipe.clip_norm = self.clip_norm.or(recipe.clip_norm);
        recipe.ema = self.ema.or(recipe.ema);
    }
}

fn optimizer(name: &str) -> Result<Optimizer, String> {
    [Optimizer::Sgd, Optimizer::ADAMW]
        .into_iter()
        .find(|known| known.name() == name)
        .ok_or_else(|| format!("'{name}' is not an optimiser: use sgd or adamw"))
}
