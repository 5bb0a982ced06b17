"""Who answers: how each engine is started, watched and stopped."""
