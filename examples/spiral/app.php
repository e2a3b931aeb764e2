<?php

// In a Spiral project app.php is the framework's, and app/config/centrifugo.php
// (here beside this file) names the services that answer. This stand-in answers the
// same events without Composer, so that the configuration can be tried as it is.

require __DIR__ . '/../workers/php/worker-proto.php';
