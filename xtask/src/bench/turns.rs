//! What ran in turns: a figure of each in each round, shown as medians and as ratios to the first, nobody's, of the same
//! round.

use anyhow::Result;

use super::figures::median;
use crate::interrupt;

/// Figures of all turns so far.
pub(super) struct Turns {
    names: Vec<&'static str>,
    /// A figure of each name; none where a turn failed.
    rounds: Vec<Vec<Option<f64>>>,
}

impl Turns {
    /// No figures yet. The first is nobody.
    pub(super) const fn new(names: Vec<&'static str>) -> Self {
        Self {
            names,
            rounds: Vec::new(),
        }
    }

    /// A turn of each. Each round begins with another one, so that none has the same neighbour each time. A turn that
    /// fails is told and left out.
    pub(super) fn round(
        &mut self,
        round: u32,
        mut turn: impl FnMut(usize) -> Result<f64>,
    ) -> Result<()> {
        let count = self.names.len();
        let mut figures = vec![None; count];
        for step in 0..count {
            interrupt::check()?;
            let index = (step + round as usize) % count;
            let figure = turn(index);
            match (&figure, self.names.get(index)) {
                (Ok(figure), Some(name)) => println!("round {}: {name}: {figure:.0}", round + 1),
                (Err(error), Some(name)) => println!("round {}: {name}: {error:#}", round + 1),
                (_, None) => {}
            }
            if let Some(place) = figures.get_mut(index) {
                *place = figure.ok();
            }
        }
        self.rounds.push(figures);
        Ok(())
    }

    /// Sorted figures of one, and sorted ratios to nobody's.
    fn of(&self, index: usize) -> (Vec<f64>, Vec<f64>) {
        let figure = |round: &Vec<Option<f64>>, index: usize| round.get(index).copied().flatten();
        let mut figures: Vec<f64> = self
            .rounds
            .iter()
            .filter_map(|round| figure(round, index))
            .collect();
        let mut ratios: Vec<f64> = self
            .rounds
            .iter()
            .filter_map(|round| Some(figure(round, index)? / figure(round, 0)?))
            .collect();
        figures.sort_by(f64::total_cmp);
        ratios.sort_by(f64::total_cmp);
        (figures, ratios)
    }

    /// Prints medians and ratios.
    pub(super) fn print(&self, what: &str) {
        println!(
            "\n{what}: medians; ratios to nobody in the same round: median (lowest to highest)"
        );
        for (index, name) in self.names.iter().enumerate() {
            let (figures, ratios) = self.of(index);
            let (Some(low), Some(high)) = (ratios.first(), ratios.last()) else {
                println!("  {name:<40} no figure");
                continue;
            };
            println!(
                "  {name:<40}{:>10.0}{:>9.3}  ({low:.3} to {high:.3})",
                median(&figures),
                median(&ratios)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::Turns;

    /// Ratios are of the same round, whatever the order; what failed is left out.
    #[test]
    fn ratios_are_of_the_same_round() {
        let mut turns = Turns::new(vec!["nobody", "somebody"]);
        for (round, nobody) in [(0, 2.0), (1, 4.0), (2, 5.0)] {
            turns
                .round(round, |index| match index {
                    0 => Ok(nobody),
                    _ if round == 2 => bail!("no"),
                    _ => Ok(nobody * 1.5),
                })
                .unwrap();
        }
        assert_eq!(turns.of(1), (vec![3.0, 6.0], vec![1.5, 1.5]));
    }
}
