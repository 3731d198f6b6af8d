"""One recipe per paper: its experiments at several scales, its claims, our verdicts."""

RECIPES = {
    "draxler2018": "Essentially No Barriers in Neural Network Energy Landscape: "
    "paths of low loss between independently trained minima (AutoNEB)",
}
