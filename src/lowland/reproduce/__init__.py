"""One recipe per paper: its experiments at several scales, its claims, our verdicts."""

RECIPES = {
    "baityjesi2018": "Comparing Dynamics: Deep Neural Networks versus Glassy Systems: two-time "
    "displacements, gradient noise and flat directions beside the exact p-spin glass",
    "draxler2018": "Essentially No Barriers in Neural Network Energy Landscape: "
    "paths of low loss between independently trained minima (AutoNEB)",
    "huang2018": "Learning Deep ResNet Blocks Sequentially using Boosting Theory: networks grown "
    "block by block, with a certificate at every depth (BoostResNet)",
    "katharopoulos2018": "Not All Samples Are Created Equal: Deep Learning with Importance "
    "Sampling: a backward pass only where it matters, and whether that pays",
    "li2018": "An Optimal Control Approach to Deep Learning: weights of two or three values by "
    "the maximum principle, without gradients in them (discrete MSA)",
}
