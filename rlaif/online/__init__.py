"""Online training: rollouts of a policy, their rewards, and the loop that learns from them."""
